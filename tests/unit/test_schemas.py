"""The Structs and the table of commands: consistent in themselves, strict about what comes in."""

import inspect
import re

import msgspec
import pytest

from schemas.commands import BY_NAME, BY_TYPE, COMMANDS, Command
from schemas.docs.examples import EXAMPLES
from schemas.docs.model import components, structs
from schemas.errors import MEANING, STATUS
from schemas.events import EDGE_EVENTS, EVENTS
from schemas.messages import SendMessage
from schemas.types import ClientMsgId, ConversationId, Model, MsgId, Nickname, Token, Username

by_type = pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.type)


def test_names_and_routes_are_unique() -> None:
    names = [name for c in COMMANDS for name in (c.type, *c.aliases)]
    assert len(names) == len(set(names))
    assert set(BY_NAME) == {n for c in COMMANDS if not c.internal for n in (c.type, *c.aliases)}
    assert len(BY_TYPE) == len(COMMANDS)
    routes = [(c.route.method, re.sub(r"{\w+}", "{}", c.route.path)) for c in COMMANDS if c.route]
    assert len(routes) == len(set(routes))


@by_type
def test_a_command_is_well_formed(command: Command) -> None:
    assert re.fullmatch(r"[a-z_]+\.[a-z_]+", command.type), "must fit a NATS subject"
    assert command.deadline_ms > 0
    assert set(command.errors) <= STATUS.keys()
    if command.internal:
        assert command.route is None, "no client may send it"
        assert not command.anonymous
        assert not command.aliases
    if command.route is not None:
        named = set(re.findall(r"{(\w+)}", command.route.path))
        assert named <= set(command.request.__struct_fields__)


@by_type
def test_query_and_path_hold_only_plain_values(command: Command) -> None:
    if command.route is None or command.route.method not in {"GET", "DELETE"}:
        return
    schema = components([command.request])[command.request.__name__]
    for name, field in schema["properties"].items():
        kinds = {option.get("type") for option in field.get("anyOf", [field])} - {"null"}
        assert kinds <= {"string", "integer", "boolean"}, f"{name} cannot stand in a query"


@pytest.mark.parametrize("struct", structs(), ids=lambda s: s.__name__)
def test_every_struct_says_what_it_is(struct: type[Model]) -> None:
    assert struct.__dict__.get("__doc__"), "a docstring of its own becomes the description"
    assert inspect.cleandoc(struct.__doc__ or "").split("\n")[0].endswith((".", ":"))


def test_event_types_are_unique() -> None:
    assert len({e.type for e in EVENTS}) == len(EVENTS)
    assert set(EDGE_EVENTS) <= set(EVENTS)


def test_every_error_code_has_a_status_and_a_meaning() -> None:
    assert list(STATUS) == list(MEANING)
    assert all(400 <= status <= 504 for status in STATUS.values())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: type(e).__name__)
def test_examples_come_back_from_json(example: Model) -> None:
    assert msgspec.json.decode(msgspec.json.encode(example), type=type(example)) == example


@pytest.mark.parametrize(
    ("kind", "good"),
    [
        (Token, "aZ_-9"),
        (ClientMsgId, "01937c5e-8f3a"),
        (ConversationId, "p_7_8"),
        (ConversationId, "g_9007199254740991"),
        (MsgId, "132271570944000001"),
        (Username, "ålice.b"),
        (Nickname, "Alice B."),
    ],
)
@pytest.mark.parametrize("tail", ["\n", "\r\n", "\x00"])
def test_texts_are_matched_to_their_very_end(kind: type[str], good: str, tail: str) -> None:
    assert msgspec.convert(good, kind) == good
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(good + tail, kind)


@pytest.mark.parametrize(
    "bad",
    ["", ".", "a.b", "*", ">", "a b", "é", "x" * 65],
)
def test_tokens_never_break_a_subject(bad: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(bad, Token)


@pytest.mark.parametrize("bad", ["p_0_8", "p_07_8", "p_7", "g_", "g_-1", "x_1", "p_7_8_9"])
def test_conversations_have_one_spelling(bad: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(bad, ConversationId)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("receiver_id", 0),
        ("receiver_id", 2**53),
        ("receiver_id", "8"),
        ("msg_type", 6),
        ("content", "x" * 16_001),
        ("mentions", [1] * 101),
    ],
)
def test_send_refuses_what_breaks_a_limit(field: str, value: object) -> None:
    data = {"client_msg_id": "a", "content": "x", "receiver_id": 8} | {field: value}
    with pytest.raises(msgspec.ValidationError, match=rf"\$\.{field}"):
        msgspec.json.decode(msgspec.json.encode(data), type=SendMessage)


def test_extra_passes_unread() -> None:
    text = b'{"client_msg_id":"a","content":"x","extra":{"b": [1,  2]}}'
    sent = msgspec.json.decode(text, type=SendMessage)
    assert isinstance(sent.extra, msgspec.Raw)
    assert bytes(sent.extra) == b'{"b": [1,  2]}'
    assert b'"extra":{"b": [1,  2]}' in msgspec.json.encode(sent)
