"""`message.search`: the index names candidates, the messages themselves decide."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol

import msgspec

from functions.history.pages import MAX_ANSWER
from functions.history.view import Mine, check_private, not_mine
from schemas.search import SearchMessages
from schemas.types import Model
from shared.errors import BadRequest
from shared.function import Context, Outcome
from shared.ids import MAX_ID
from shared.lookup import MessageRow, json_of
from shared.words import Term, contains, terms_of, text_of

SCAN = 200
"""Candidates that are looked at together."""
MAX_SCANS = 10
"""Then a page ends, however few it has: `next` goes on."""


class Index(Protocol):
    """Words and messages in SQL."""

    async def mine(self, user_id: int, conversation_id: str | None) -> Mapping[str, Mine]:
        """The user's conversations, or of them the one named, with what he sees of each. Raises: Unavailable."""

    async def candidates(
        self, conversations: Sequence[str], terms: Sequence[Term], before: int, limit: int
    ) -> Sequence[MessageRow]:
        """Messages with these words below an id, the newest first; perhaps some that have them no more.

        Raises: Unavailable.
        """

    async def edited_late(
        self, rows: Sequence[MessageRow], mine: Mapping[str, Mine]
    ) -> AbstractSet[int]:
        """Ids of those that were edited after the user had left their group. Raises: Unavailable."""


class Deps(msgspec.Struct, frozen=True):
    """What `search` needs."""

    index: Index


class HasDeps(Protocol):
    """Deps of the function that serves it."""

    @property
    def searching(self) -> Deps: ...


class FoundPage(Model):
    """schemas.search.FoundMessages with its messages still encoded."""

    messages: list[msgspec.Raw]
    next: str | None


async def search(cmd: SearchMessages, ctx: Context[HasDeps]) -> Outcome[FoundPage]:
    """One page. `cursor` is the id below which it goes on."""
    terms = terms_of(cmd.q)
    if not terms:
        raise BadRequest("there is no letter or digit in it", field="q")
    if cmd.conversation_id is not None:
        check_private(ctx.user_id, cmd.conversation_id)
    before = _before(cmd.cursor)
    index = ctx.deps.searching.index
    mine = await index.mine(ctx.user_id, cmd.conversation_id)
    if cmd.conversation_id is not None and not mine and cmd.conversation_id.startswith("g_"):
        raise not_mine(cmd.conversation_id)
    found: list[msgspec.Raw] = []
    size = 0
    for _ in range(MAX_SCANS if mine else 0):
        rows = await index.candidates(list(mine), terms, before, SCAN)
        late = await index.edited_late(rows, mine)
        for row in rows:
            if row.id not in late and _is_found(row, mine, terms):
                message = json_of(row)
                size += len(message)
                if len(found) == cmd.limit or (found and size > MAX_ANSWER):
                    return Outcome(FoundPage(found, str(before)))
                found.append(msgspec.Raw(message))
            before = row.id
        if len(rows) < SCAN:
            return Outcome(FoundPage(found, None))
    return Outcome(FoundPage(found, str(before) if mine else None))


def _is_found(row: MessageRow, mine: Mapping[str, Mine], terms: list[Term]) -> bool:
    """Whether the message, as it is now, is there for the user and has the words."""
    return (
        row.status == 0
        and mine[row.conversation_id].sees(row.seq)
        and contains(text_of(row.msg_type, row.content), terms)
    )


def _before(cursor: str | None) -> int:
    if cursor is None:
        return MAX_ID
    if not cursor.isdecimal() or int(cursor) > MAX_ID:
        raise BadRequest("not a cursor of this search", field="cursor")
    return int(cursor)
