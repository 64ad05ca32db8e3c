"""`message.send` up to the log: who is meant, what is refused, what the record holds."""

from typing import Any

import msgspec
import pytest

from functions.send.handler import Body, Deps, send
from schemas.contents import IMAGE
from schemas.messages import Origin, SendMessage
from schemas.records import SendRequested
from shared.errors import AppError, BadRequest, NotFound, NotMember
from shared.function import Context


class OpenGate:
    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    async def private(self, sender: int, receiver: int) -> None:
        self.asked.append((sender, receiver))
        if receiver == 404:
            raise NotFound("no user 404")

    async def group(self, sender: int, group_id: int) -> None:
        self.asked.append((sender, group_id))
        if group_id == 404:
            raise NotMember("you are no member of group 404")


ORIGIN = Origin("77", "p_1_7", 1, 5)


class Library:
    """Message 77 of p_1_7 may be forwarded by 7; 78 stands in p_3_7."""

    async def quoted(self, msg_id: str, conversation_id: str) -> str:
        if (int(msg_id), conversation_id) != (78, "p_3_7"):
            raise NotFound("no such message", field="reply_to")
        return "78"

    async def forwarded(self, msg_id: str, user_id: int) -> Body:
        if (msg_id, user_id) != ("77", 7):
            raise NotFound("no such message", field="forward_of")
        return Body(IMAGE, "{}", "f1", msgspec.Raw(b"[1]"), ORIGIN)


class NoLibrary:
    """Fails whoever asks it: most messages refer to none."""


async def sent(
    data: dict[str, Any],
    sender: int = 7,
    library: Any = NoLibrary(),  # noqa: B008 - it holds nothing
) -> SendRequested:
    cmd = msgspec.json.decode(
        msgspec.json.encode({"client_msg_id": "c1", "content": "hi"} | data), type=SendMessage
    )
    gate = OpenGate()
    outcome = await send(
        cmd, Context(sender, Deps(gate, library), 123, "conn", "sess", "_INBOX.x", "trace")
    )
    assert outcome.reply is None
    (record,) = outcome.requests
    assert isinstance(record, SendRequested)
    assert gate.asked == [(sender, record.receiver_id or record.group_id)]
    return record


@pytest.mark.parametrize("named", [{"receiver_id": 3}, {"conversation_id": "p_3_7"}])
async def test_the_receiver_may_be_named_either_way(named: dict[str, Any]) -> None:
    record = await sent(named)
    assert (record.conversation_id, record.user_id, record.receiver_id) == ("p_3_7", 7, 3)
    assert (record.reply, record.conn, record.trace, record.at) == (
        "_INBOX.x",
        "conn",
        "trace",
        123,
    )


@pytest.mark.parametrize("named", [{"group_id": 5}, {"conversation_id": "g_5"}])
async def test_so_may_the_group(named: dict[str, Any]) -> None:
    record = await sent(named)
    assert (record.conversation_id, record.group_id, record.receiver_id) == ("g_5", 5, None)


async def test_a_sender_in_the_payload_is_ignored() -> None:
    assert (await sent({"receiver_id": 3, "sender_id": 9, "user_id": 9})).user_id == 7


async def test_extra_is_kept_as_it_is() -> None:
    record = await sent({"receiver_id": 3, "extra": {"b": [1, 2.50], "a": None}})
    assert msgspec.json.decode(msgspec.json.encode(record))["extra"] == {"b": [1, 2.5], "a": None}


@pytest.mark.parametrize(
    ("named", "code"),
    [
        ({}, "bad_request"),
        ({"receiver_id": 3, "conversation_id": "p_3_7"}, "bad_request"),
        ({"receiver_id": 7}, "bad_request"),
        ({"conversation_id": "p_3_4"}, "forbidden"),
        ({"conversation_id": "p_7_3"}, "bad_request"),
        ({"receiver_id": 404}, "not_found"),
        ({"group_id": 404}, "not_member"),
        ({"conversation_id": "g_404"}, "not_member"),
        ({"group_id": 5, "receiver_id": 3}, "bad_request"),
        ({"receiver_id": 3, "extra": "x" * 5000}, "too_large"),
    ],
)
async def test_what_is_refused(named: dict[str, Any], code: str) -> None:
    with pytest.raises(AppError) as caught:
        await sent(named)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "extra",
    [b'"\xff"', b'{"\xff":1}', b'"\\ud800"', b"1e400", b"[" * 65 + b"]" * 65, b"[" * 2000],
    ids=["no UTF-8", "key no UTF-8", "half a pair", "huge number", "deep", "very deep"],
)
async def test_extra_that_a_strict_reader_would_refuse(extra: bytes) -> None:
    gate = OpenGate()
    cmd = SendMessage("c1", "hi", receiver_id=3, extra=msgspec.Raw(extra))
    with pytest.raises(BadRequest) as refused:
        await send(cmd, Context(7, Deps(gate, Library()), 123))
    assert refused.value.field == "extra"
    assert gate.asked == []


async def test_extra_may_be_nested() -> None:
    deep = msgspec.json.decode(b"[" * 64 + b"]" * 64)
    record = await sent({"receiver_id": 3, "extra": deep})
    assert msgspec.json.decode(msgspec.json.encode(record))["extra"] == deep


@pytest.mark.parametrize(
    "data",
    [
        {"content": "x" * 16_001},
        {"content": 5},
        {"client_msg_id": "a.b"},
        {"client_msg_id": "*"},
        {"client_msg_id": "a\r\nPUB"},
        {"client_msg_id": ""},
        {"msg_type": 6},
        {"msg_type": "1"},
        {"receiver_id": 0},
        {"receiver_id": 2**53},
        {"receiver_id": 1.5},
        {"reply_to": "x"},
        {"mentions": ["a"]},
        {"mentions": ["All"]},
        {"forward_of": "x"},
    ],
)
async def test_the_shape_is_checked_by_the_schema(data: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        await sent({"receiver_id": 3} | data)


IMAGE_TEXT = '{"file_id":"f1","size":9,"type":"image/png","width":4,"height":3}'


async def test_an_image_is_passed_on_as_it_is_with_its_file() -> None:
    record = await sent({"receiver_id": 3, "msg_type": IMAGE, "content": IMAGE_TEXT})
    assert (record.msg_type, record.content, record.file_id) == (IMAGE, IMAGE_TEXT, "f1")


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"content": ""}, "content"),
        ({"msg_type": IMAGE, "content": "a picture"}, "content"),
        ({"msg_type": IMAGE, "content": IMAGE_TEXT.replace("4", "0")}, "content.width"),
        ({"msg_type": IMAGE, "content": IMAGE_TEXT, "file_id": "f2"}, "file_id"),
    ],
)
async def test_a_content_that_is_none_of_its_type(data: dict[str, Any], field: str) -> None:
    with pytest.raises(BadRequest) as refused:
        await sent({"receiver_id": 3} | data)
    assert refused.value.field == field


async def test_everybody_may_be_mentioned() -> None:
    record = await sent({"receiver_id": 3, "mentions": [3, "all"]})
    assert msgspec.json.decode(msgspec.json.encode(record), type=SendRequested).mentions == [
        3,
        "all",
    ]


async def test_only_messages_of_the_conversation_are_quoted() -> None:
    assert (await sent({"receiver_id": 3, "reply_to": "78"}, library=Library())).reply_to == "78"
    with pytest.raises(NotFound) as refused:
        await sent({"receiver_id": 4, "reply_to": "78"}, library=Library())
    assert refused.value.field == "reply_to"


async def test_a_forward_says_what_its_origin_says() -> None:
    data = {"receiver_id": 3, "forward_of": "77", "content": "", "mentions": [3]}
    record = await sent(data, library=Library())
    assert (record.forward, record.forward_of) == (ORIGIN, "77")
    assert (record.msg_type, record.content, record.file_id) == (IMAGE, "{}", "f1")
    assert record.extra == msgspec.Raw(b"[1]")
    assert record.mentions == [3]


async def test_a_forward_whose_origin_is_not_there_goes_to_the_timeline_without_a_body() -> None:
    """Which alone knows whether it repeats a message that was sent while it was there."""
    record = await sent({"receiver_id": 3, "forward_of": "77", "content": ""}, 8, Library())
    assert (record.forward_of, record.forward, record.content, record.file_id) == (
        "77",
        None,
        "",
        None,
    )
