"""Events in HTTP messages: what is written is read, and what is malformed is refused."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from shared import cloudevents
from shared.cloudevents import Event, MalformedError, Mode, UnsupportedError, read_overrides

BINARY = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t"}
ENVELOPE = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
STRUCTURED = {"Content-Type": "application/cloudevents+json"}

text = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=30)
names = st.from_regex(r"x[a-z0-9]{0,10}", fullmatch=True)
modes = st.sampled_from(["binary", "structured"])


@given(
    mode=modes,
    event_id=text,
    subject=text,
    extensions=st.dictionaries(names, text, max_size=3),
    data=st.recursive(
        st.none() | st.booleans() | st.integers(-(2**50), 2**50) | text,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    ),
)
def test_what_is_written_is_read(
    mode: Mode, event_id: str, subject: str, extensions: dict[str, str], data: object
) -> None:
    payload = json.dumps(data).encode() if data is not None else b""
    event = Event(
        id=event_id,
        source="/s",
        type="t",
        subject=subject,
        time="2026-11-23T20:00:00.5Z",
        content_type="application/json",
        data=payload,
        extensions=extensions,
    )
    headers, body = cloudevents.write(event, mode)
    assert all(value.isascii() for value in headers.values())
    assert cloudevents.read(CIMultiDict(headers), body) == (event, mode)


@given(data=st.binary(min_size=1), mode=modes)
def test_bytes_that_are_no_json_pass(data: bytes, mode: Mode) -> None:
    event = Event(id="1", source="/s", type="t", content_type="image/png", data=data)
    headers, body = cloudevents.write(event, mode)
    assert cloudevents.read(CIMultiDict(headers), body) == (event, mode)


def binary(**changes: str) -> CIMultiDict[str]:
    return CIMultiDict({k: v for k, v in (BINARY | changes).items() if v != "-"})


@pytest.mark.parametrize(
    ("value", "read_as"),
    [
        ("a%20b", "a b"),
        ("%E2%82%AC", "€"),
        ('"quoted \\"twice\\""', 'quoted "twice"'),
        ("plain €", "plain €"),
        ("100%", "100%"),
    ],
)
def test_values_of_headers_are_decoded(value: str, read_as: str) -> None:
    event, _ = cloudevents.read(binary(**{"ce-subject": value}), b"")
    assert event.subject == read_as


def test_names_of_headers_have_no_case() -> None:
    headers = CIMultiDict(
        {"CE-SpecVersion": "1.0", "Ce-Id": "1", "cE-source": "/s", "CE-TYPE": "t", "Ce-ImConn": "c"}
    )
    event, mode = cloudevents.read(headers, b"{}")
    assert (event.extensions, event.data, mode) == ({"imconn": "c"}, b"{}", "binary")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"ce-specversion": "-"}, "specversion"),
        ({"ce-specversion": "0.3"}, "specversion"),
        ({"ce-id": "-"}, "id"),
        ({"ce-id": ""}, "id"),
        ({"ce-source": "-"}, "source"),
        ({"ce-type": "-"}, "type"),
        ({"ce-time": "yesterday"}, "time"),
        ({"ce-subject": "a%0d%0ab"}, "control"),
        ({"ce-subject": "%FF"}, "UTF-8"),
        ({"ce-my_name": "x"}, "no name"),
        ({"ce-datacontenttype": "text/plain"}, "datacontenttype"),
        ({"Content-Type": "nonsense"}, "content type"),
    ],
)
def test_malformed_in_binary_mode(changes: dict[str, str], complaint: str) -> None:
    with pytest.raises(MalformedError, match=complaint):
        cloudevents.read(binary(**changes), b"{}")


def test_an_attribute_that_is_there_twice_is_ambiguous() -> None:
    headers = binary(**{"ce-subject": "7"})
    headers.add("Ce-Subject", "8")
    with pytest.raises(MalformedError, match="twice"):
        cloudevents.read(headers, b"{}")


def test_what_is_no_event_at_all() -> None:
    with pytest.raises(MalformedError, match="neither"):
        cloudevents.read(CIMultiDict({"Content-Type": "application/json"}), b"{}")


@pytest.mark.parametrize(
    "kind",
    [
        "application/cloudevents-batch+json",
        "application/cloudevents+avro",
        "application/cloudevents",
    ],
)
def test_other_formats_are_said_not_to_be_read(kind: str) -> None:
    with pytest.raises(UnsupportedError):
        cloudevents.read(CIMultiDict({"Content-Type": kind}), b"{}")


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"{", "JSON"),
        (b"\xff", "JSON"),
        (b"[]", "object"),
        (b'{"x":' * 100_000, "JSON"),
        (json.dumps(ENVELOPE | {"id": 5}).encode(), "id"),
        (json.dumps(ENVELOPE | {"id": None}).encode(), "id"),
        (json.dumps(ENVELOPE | {"id": ""}).encode(), "id"),
        (json.dumps(ENVELOPE | {"specversion": 1.0}).encode(), "specversion"),
        (json.dumps(ENVELOPE | {"ext": {"a": 1}}).encode(), "ext"),
        (json.dumps(ENVELOPE | {"ext": 2**40}).encode(), "ext"),
        (json.dumps(ENVELOPE | {"Upper": "x"}).encode(), "no name"),
        (json.dumps(ENVELOPE | {"subject": "a\nb"}).encode(), "control"),
        (json.dumps(ENVELOPE | {"data": 1, "data_base64": "AA=="}).encode(), "exclude"),
        (json.dumps(ENVELOPE | {"data_base64": "?"}).encode(), "base64"),
        (json.dumps(ENVELOPE | {"data_base64": 5}).encode(), "string"),
    ],
)
def test_malformed_in_structured_mode(body: bytes, complaint: str) -> None:
    with pytest.raises(MalformedError, match=complaint):
        cloudevents.read(CIMultiDict(STRUCTURED), body)


def test_an_envelope_of_others() -> None:
    envelope = ENVELOPE | {
        "subject": None,
        "comexampleflag": True,
        "comexamplenumber": -5,
        "datacontenttype": "text/plain",
        "data_base64": base64.b64encode(b"hello").decode(),
    }
    headers = CIMultiDict({"content-type": "application/cloudevents+json; charset=UTF-8"})
    event, mode = cloudevents.read(headers, json.dumps(envelope).encode())
    assert mode == "structured"
    assert (event.subject, event.content_type, event.data) == ("", "text/plain", b"hello")
    assert event.extensions == {"comexampleflag": "true", "comexamplenumber": "-5"}
    assert not event.has_json


def test_data_stays_byte_for_byte() -> None:
    raw = b'{ "b" : 1.0,\n "a":"\\u00e9" }'
    body = json.dumps(ENVELOPE).encode()[:-1] + b',"data":' + raw + b"}"
    assert cloudevents.read(CIMultiDict(STRUCTURED), body)[0].data == raw


@pytest.mark.parametrize("kind", ["", "application/json", "application/vnd.x+json; charset=utf-8"])
def test_what_counts_as_json(kind: str) -> None:
    assert Event(id="1", source="/s", type="t", content_type=kind).has_json


def test_overrides_of_a_sink_binding() -> None:
    assert read_overrides("") == read_overrides("{}") == read_overrides('{"extensions":null}') == {}
    assert read_overrides('{"extensions":{"tenant":"a"}}') == {"tenant": "a"}
    for wrong in (
        "{",
        "[]",
        '{"extensions":{"a":1}}',
        '{"extensions":{"id":"1"}}',
        '{"extensions":{"A":"1"}}',
    ):
        with pytest.raises(ValueError):
            read_overrides(wrong)
