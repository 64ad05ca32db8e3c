"""What `translate` does with a message. It decides; the host carries out what stands in the Outcome."""

from typing import ClassVar, Protocol

import msgspec

from schemas.events import Event
from schemas.facts import MessageSent
from shared.function import Context, Outcome, to_user

TEXT = 1
"""`msg_type` of messages that are text."""


class Translation(Event):
    """A push: the English of a message. `msg_id` says of which; a repeat is the same again."""

    type: ClassVar[str] = "translation"
    msg_id: str
    conversation_id: str
    text: str


class Translator(Protocol):
    """Whoever can translate. Raises if he cannot right now: the fact comes again, later."""

    async def english(self, text: str) -> str | None:
        """The English of a text; None if there is nothing to translate."""


class Deps(msgspec.Struct, frozen=True):
    """What `translate` needs."""

    translator: Translator


async def translate(fact: MessageSent, ctx: Context[Deps]) -> Outcome[Translation]:
    """Translates a private text message for its receiver.

    Facts come at least once. That a repeat makes the same push again harms nobody; whoever writes somewhere remembers
    `fact.id` there.
    """
    message = fact.data
    if message.msg_type != TEXT or not message.receiver_id:
        return Outcome(None)
    english = await ctx.deps.translator.english(message.content)
    if english is None:
        return Outcome(None)
    push = Translation(message.msg_id, message.conversation_id, english)
    return Outcome(None, pushes=(to_user(message.receiver_id, push),))
