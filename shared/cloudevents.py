"""CloudEvents 1.0 over HTTP: events read and written in binary and in structured JSON mode.

Written by hand because it stands on the road of every command that passes a bridge, and to keep `data` as the bytes
that came: neither side decodes what it only hands on.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Literal
from urllib.parse import quote, unquote

import msgspec

JSON = "application/json"
STRUCTURED = "application/cloudevents+json"
Mode = Literal["binary", "structured"]

_NAME = re.compile(r"[a-z0-9]{1,64}")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+", re.ASCII)
# Control characters, and what is half of a character only.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
# What may stand in a header as it is: printable ASCII but for the space, the quote and the percent sign.
_PLAIN = "".join(chr(c) for c in range(0x21, 0x7F) if chr(c) not in '"%')
_OWN = frozenset({"specversion", "id", "source", "type", "subject", "time", "dataschema"})


class MalformedError(ValueError):
    """These bytes are no event; the message says what is wrong with them."""


class UnsupportedError(MalformedError):
    """It may be an event, but in a format that is not read here (a batch, Avro …)."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One event. `data` are its bytes, of the media type `content_type`; "" stands for what is absent.

    extensions: further attributes, by lower-case name, as text.
    """

    id: str
    source: str
    type: str
    subject: str = ""
    time: str = ""
    dataschema: str = ""
    content_type: str = ""
    data: bytes = b""
    extensions: dict[str, str] = {}

    @property
    def has_json(self) -> bool:
        """Whether `data` is JSON. Without a media type it is: so says the JSON format, and so do we."""
        kind = self.content_type.partition(";")[0].strip().lower()
        return kind in ("", JSON) or kind.endswith("+json")


def read(headers: Mapping[str, str], body: bytes) -> tuple[Event, Mode]:
    """The event in an HTTP message, and the mode it came in. `headers` takes names in any case, as aiohttp's do.

    Raises: MalformedError, UnsupportedError.
    """
    content_type = headers.get("Content-Type", "")
    kind = content_type.partition(";")[0].strip().lower()
    if kind == STRUCTURED:
        return _read_structured(body), "structured"
    if kind.startswith("application/cloudevents"):
        raise UnsupportedError(f"events as {kind} are not read here, only as {STRUCTURED}")
    attributes: dict[str, str] = {}
    for key, value in headers.items():
        name = key.lower()
        if name.startswith("ce-"):
            name = name[3:]
            if name in attributes:
                raise MalformedError(f"the header ce-{name} is there twice")
            attributes[name] = _from_header(name, value)
    if not attributes:
        raise MalformedError("neither ce-… headers nor Content-Type: application/cloudevents+json")
    if "datacontenttype" in attributes:
        raise MalformedError("datacontenttype is the header Content-Type in binary mode")
    return _event(attributes, content_type, body), "binary"


def write(event: Event, mode: Mode = "binary") -> tuple[dict[str, str], bytes]:
    """Headers and body of an HTTP message with this event."""
    return _write_structured(event) if mode == "structured" else _write_binary(event)


def check_extension(name: str) -> str:
    """Returns `name`. Raises: MalformedError if an extension attribute cannot be called so."""
    if not _NAME.fullmatch(name) or name in _OWN or name in ("data", "datacontenttype"):
        raise MalformedError(f"{name[:80]!r} is no name of an extension attribute")
    return name


def _attributes(event: Event) -> dict[str, str]:
    given = {
        "specversion": "1.0",
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "subject": event.subject,
        "time": event.time,
        "dataschema": event.dataschema,
    }
    return {name: value for name, value in (given | event.extensions).items() if value}


def _write_binary(event: Event) -> tuple[dict[str, str], bytes]:
    headers = {
        f"ce-{name}": quote(value, safe=_PLAIN) for name, value in _attributes(event).items()
    }
    if event.content_type:
        headers["Content-Type"] = event.content_type
    return headers, event.data


def _write_structured(event: Event) -> tuple[dict[str, str], bytes]:
    envelope: dict[str, object] = dict(_attributes(event))
    if event.content_type:
        envelope["datacontenttype"] = event.content_type
    if event.data:
        if event.has_json:
            envelope["data"] = msgspec.Raw(event.data)
        else:
            envelope["data_base64"] = event.data
    return {"Content-Type": f"{STRUCTURED}; charset=utf-8"}, msgspec.json.encode(envelope)


def _from_header(name: str, value: str) -> str:
    """Quotes and percent signs undone, as the HTTP binding wants it."""
    if len(value) >= 2 and value[0] == value[-1] == '"':
        value = re.sub(r"\\(.)", r"\1", value[1:-1])
    try:
        return unquote(value, errors="strict")
    except UnicodeDecodeError:
        raise MalformedError(f"{name} is not UTF-8 behind its percent signs") from None


_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_base64 = msgspec.json.Decoder(str).decode


def _read_structured(body: bytes) -> Event:
    try:
        fields = _decode_object(body)
        raw, encoded = fields.pop("data", None), fields.pop("data_base64", None)
        values = {name: msgspec.json.decode(value) for name, value in fields.items()}
        text = None if encoded is None else msgspec.json.decode(encoded, type=str | None)
    except msgspec.ValidationError:
        raise MalformedError("an event is a JSON object, and data_base64 a string") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError(f"not valid JSON: {str(error)[:200]}") from None
    attributes = {
        name: _from_json(name, value) for name, value in values.items() if value is not None
    }
    if text is not None:
        if raw is not None:
            raise MalformedError("data and data_base64 exclude each other")
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise MalformedError("data_base64 is not base64") from None
    else:
        data = b"" if raw is None or bytes(raw) == b"null" else bytes(raw)
    return _event(attributes, attributes.pop("datacontenttype", ""), data)


def _from_json(name: str, value: object) -> str:
    """Attributes are text, or a number or truth value that has one."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, int) and -(2**31) <= value < 2**31 and name not in _OWN:
        return str(value)
    raise MalformedError(f"{name[:80]} is not a string")


def _event(attributes: dict[str, str], content_type: str, data: bytes) -> Event:
    for name, value in attributes.items():
        if not _NAME.fullmatch(name):
            raise MalformedError(f"{name[:80]!r} is no name of an attribute")
        if _FORBIDDEN.search(value):
            raise MalformedError(f"{name} holds a control character")
    if attributes.get("specversion") != "1.0":
        raise MalformedError("specversion is not 1.0")
    for name in ("id", "source", "type"):
        if not attributes.get(name):
            raise MalformedError(f"{name} is missing or empty")
    if (time := attributes.get("time")) is not None and not _TIME.fullmatch(time):
        raise MalformedError("time is no RFC 3339 time")
    if content_type and not _MEDIA_TYPE.match(content_type):
        raise MalformedError("the data's content type is no media type")
    return Event(
        id=attributes["id"],
        source=attributes["source"],
        type=attributes["type"],
        subject=attributes.get("subject", ""),
        time=attributes.get("time", ""),
        dataschema=attributes.get("dataschema", ""),
        content_type=content_type,
        data=data,
        extensions={name: value for name, value in attributes.items() if name not in _OWN},
    )


def read_overrides(text: str) -> Mapping[str, str]:
    """The extensions that `K_CE_OVERRIDES` wants on every event: `{"extensions": {"name": "value"}}`.

    Raises: ValueError saying what is wrong.
    """
    if not text:
        return {}

    class Overrides(msgspec.Struct):
        extensions: dict[str, str] | None = None

    try:
        extensions = msgspec.json.decode(text, type=Overrides).extensions or {}
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f'is not {{"extensions": {{"name": "value"}}}}: {error}') from None
    return {check_extension(name): value for name, value in extensions.items()}
