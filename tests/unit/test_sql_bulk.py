"""Rows written out as text: cut to statements, and only values that it knows."""

import pytest

from shared.adapters.bulk import MAX_STATEMENT, inserts


def test_one_statement_for_what_fits() -> None:
    rows = [(1, "it's \\ \n \x00 100%", None, b"\x00\xff"), (-2, "日本", "x", b"")]
    assert list(inserts("INSERT INTO t VALUES ", rows, " ON DUPLICATE")) == [
        "INSERT INTO t VALUES (1,'it\\'s \\\\ \\n \\0 100%',NULL,x'00ff'),(-2,'日本','x',x'') ON DUPLICATE"
    ]


def test_no_rows_no_statement() -> None:
    assert list(inserts("INSERT", [], "")) == []


def test_long_rows_are_cut_into_statements() -> None:
    rows = [("x" * 100_000,) for _ in range(25)]
    statements = list(inserts("I ", rows, ""))
    assert [s.count("(") for s in statements] == [9, 9, 7]
    assert all(len(s) <= MAX_STATEMENT + 10 for s in statements)


@pytest.mark.parametrize("value", [1.5, True, object(), ["a"]])
def test_other_types_are_refused(value: object) -> None:
    with pytest.raises(KeyError):
        list(inserts("I ", [(value,)], ""))
