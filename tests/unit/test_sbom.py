"""The bill of packages that stands in each image."""

import json
from pathlib import Path

import pytest

from deploy import sbom


def package(folder: Path, name: str, metadata: str) -> None:
    """Lays down what pip leaves of an installed package."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    text = f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n{metadata}\n"
    (info / "METADATA").write_text(text)


def bill(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert sbom.main(["edge", str(folder)]) == 0
    return capsys.readouterr().out


def test_it_names_packages_and_licences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package(tmp_path, "Zope.Thing_x", "License-Expression: MIT")
    package(tmp_path, "apart", "Classifier: License :: OSI Approved :: BSD License")
    package(tmp_path, "bare", "License: " + "the whole text " * 20)
    found = json.loads(bill(tmp_path, capsys))
    assert found["bomFormat"] == "CycloneDX"
    assert found["metadata"]["component"]["name"] == "natterjack/edge"
    assert [(c["purl"], c.get("licenses")) for c in found["components"]] == [
        ("pkg:pypi/apart@1.0", [{"license": {"name": "BSD License"}}]),
        ("pkg:pypi/bare@1.0", None),
        ("pkg:pypi/zope-thing-x@1.0", [{"expression": "MIT"}]),
    ]


def test_the_same_packages_make_the_same_bytes_and_others_do_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, names in (("a", "xy"), ("b", "yx"), ("c", "x")):
        for name in names:
            package(tmp_path / folder, name, "License: MIT")
    first = bill(tmp_path / "a", capsys)
    assert bill(tmp_path / "b", capsys) == first
    assert json.loads(bill(tmp_path / "c", capsys))["serialNumber"] not in first
