"""`translate` without any server: the handler is a plain coroutine, and a fact is what stands on the wire."""

import json

import msgspec
import pytest

from schemas.facts import MessageSent
from shared.function import Context

from . import function
from .handler import Deps, translate
from .phrasebook import Phrasebook


class Away:
    """A translation service that is not reached."""

    async def english(self, text: str) -> str | None:
        raise ConnectionError(text)


def sent(content: str, **changed: object) -> MessageSent:
    """The fact of a message from user 1 to user 2, as it comes out of the stream."""
    message = {
        "msg_id": "132271570944000001",
        "conversation_id": "p_1_2",
        "sender_id": 1,
        "receiver_id": 2,
        "msg_type": 1,
        "content": content,
        "timestamp": 1_790_000_000_000,
        "seq": 7,
        "client_msg_id": "c-1",
        "status": 0,
    }
    fact = {"type": "message.sent", "id": "message.sent.1", "data": message | changed}
    return msgspec.json.decode(json.dumps(fact), type=MessageSent)


CONTEXT = Context(0, Deps(Phrasebook()), 1_790_000_000_100)


async def test_the_receiver_hears_it_in_english() -> None:
    (push,) = (await translate(sent("Guten Morgen!"), CONTEXT)).pushes
    assert push.subject == "im.v1.user.2"
    assert json.loads(push.frame) == {
        "type": "translation",
        "data": {
            "msg_id": "132271570944000001",
            "conversation_id": "p_1_2",
            "text": "good morning",
        },
    }


async def test_a_repeat_is_the_same_again() -> None:
    first = await translate(sent("Hallo Welt"), CONTEXT)
    assert await translate(sent("Hallo Welt"), CONTEXT) == first


@pytest.mark.parametrize(
    "fact",
    [
        sent("Good morning"),
        sent("…"),
        sent("Guten Morgen", msg_type=2),
        sent("Guten Morgen", receiver_id=None, group_id=5),
    ],
    ids=["english", "no words", "the caption of an image", "to a group"],
)
async def test_what_it_has_nothing_to_say_about(fact: MessageSent) -> None:
    assert (await translate(fact, CONTEXT)).pushes == ()


async def test_a_translator_that_is_away_makes_the_fact_come_again() -> None:
    with pytest.raises(ConnectionError):
        await translate(sent("Hallo"), msgspec.structs.replace(CONTEXT, deps=Deps(Away())))


def test_it_follows_one_fact_and_serves_no_command() -> None:
    assert function.name == "translate"
    assert [fact.name for fact in function.facts] == ["message.sent"]
    assert function.handlers == ()
