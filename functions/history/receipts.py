"""`message.receipts`, `message.edits` and `conversation.pins`: what is known about single messages."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

from functions.history.view import Mine, Views, check_private, known
from schemas.conversations import Edit, Edits, ListEdits, ListPins, ListReceipts, Receipt, Receipts
from schemas.types import Model
from shared.errors import AppError, BadRequest, NotFound
from shared.function import Context, Outcome
from shared.lookup import MessageRow


class Finder(Protocol):
    """See `shared.lookup.Messages`."""

    async def find(self, msg_id: str) -> MessageRow | None:
        """The row of a message. Raises: Unavailable."""


class Reader(NamedTuple):
    """A member who has a message; `read`: and has read it."""

    user_id: int
    read: bool


class Readers(NamedTuple):
    """A page of them by user, and how many there are."""

    page: Sequence[Reader]
    read: int
    delivered: int


class Pin(NamedTuple):
    """A pinned message as JSON."""

    message: bytes
    user_id: int
    pinned_ms: int


Place = tuple[int, int]
"""Of a pin in their list: pinned_ms, msg_id; from great to small."""


class Book(Protocol):
    """What is kept about single messages. Everything raises Unavailable."""

    async def readers(self, message: MessageRow, after: int, limit: int) -> Readers:
        """Members but its sender, by user, after one."""

    async def edits(self, message: MessageRow, mine: Mine) -> Sequence[Edit]:
        """Its earlier contents, oldest first; for one who has left, as far as it was edited before."""

    async def pins(
        self, conversation_id: str, mine: Mine, after: Place | None, limit: int
    ) -> tuple[Sequence[Pin], Place | None]:
        """Those of the next pins that somebody sees, newest first, and where the page after them begins, if any."""


class Deps(msgspec.Struct, frozen=True):
    """What these need."""

    messages: Finder
    views: Views
    book: Book


class HasDeps(Protocol):
    """Deps of the whole function."""

    @property
    def receipts(self) -> Deps: ...


class PinPage(Model):
    """schemas.conversations.PinnedMessage with its message still encoded."""

    message: msgspec.Raw
    user_id: int
    pinned_at: int


class PinsPage(Model):
    """schemas.conversations.Pins, likewise."""

    pins: list[PinPage]
    next: str | None


async def receipts(cmd: ListReceipts, ctx: Context[HasDeps]) -> Outcome[Receipts]:
    """Who has read a message, and whose devices have it."""
    after = _number(cmd.cursor)
    message, _ = await seen(ctx.deps.receipts, ctx.user_id, cmd.msg_id)
    readers = await ctx.deps.receipts.book.readers(message, after, cmd.limit + 1)
    page = readers.page[: cmd.limit]
    return Outcome(
        Receipts(
            [Receipt(reader.user_id) for reader in page if reader.read],
            [Receipt(reader.user_id) for reader in page],
            readers.read,
            readers.delivered,
            str(page[-1].user_id) if len(readers.page) > cmd.limit else None,
        )
    )


async def edits(cmd: ListEdits, ctx: Context[HasDeps]) -> Outcome[Edits]:
    """What a message was before it was edited; of a recalled one nothing is left."""
    message, mine = await seen(ctx.deps.receipts, ctx.user_id, cmd.msg_id)
    return Outcome(Edits(list(await ctx.deps.receipts.book.edits(message, mine))))


async def pins(cmd: ListPins, ctx: Context[HasDeps]) -> Outcome[PinsPage]:
    """The pinned messages of a conversation that the asker sees."""
    check_private(ctx.user_id, cmd.conversation_id)
    ms, _, msg_id = (cmd.cursor or "").partition(".")
    after = (_number(ms), _number(msg_id)) if cmd.cursor is not None else None
    deps = ctx.deps.receipts
    view = known(await deps.views.view(ctx.user_id, cmd.conversation_id), cmd.conversation_id)
    page, following = await deps.book.pins(cmd.conversation_id, view.mine, after, cmd.limit)
    return Outcome(
        PinsPage(
            [PinPage(msgspec.Raw(pin.message), pin.user_id, pin.pinned_ms) for pin in page],
            None if following is None else ".".join(map(str, following)),
        )
    )


async def seen(deps: Deps, user_id: int, msg_id: str) -> tuple[MessageRow, Mine]:
    """The message and what the asker sees of its conversation, if it is there for him. Raises: NotFound."""
    message = await deps.messages.find(msg_id)
    missing = NotFound(f"no message {msg_id}", field="msg_id")
    if message is None:
        raise missing
    try:
        check_private(user_id, message.conversation_id)
        view = known(
            await deps.views.view(user_id, message.conversation_id),
            message.conversation_id,
        )
    except AppError as error:
        if error.status == 403:
            raise missing from None
        raise
    if not view.mine.sees(message.seq):
        raise missing
    return message, view.mine


def _number(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not (cursor.isdecimal() and len(cursor) <= 19):
        raise BadRequest("no cursor of this list", field="cursor")
    return int(cursor)
