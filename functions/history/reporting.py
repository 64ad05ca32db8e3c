"""`message.report`: what users show to the operators."""

from typing import Protocol

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from functions.history import receipts
from schemas.search import ReportMessage
from schemas.types import Empty
from shared.adapters.bulk import Inserter
from shared.adapters.sql import to_the_end, writing
from shared.function import Context, Outcome
from shared.lookup import MessageRow
from shared.tables import message_report

KEPT = 500
"""Characters of the content that a report keeps."""


class Reports(Protocol):
    """Where they are kept."""

    async def add(self, message: MessageRow, reporter: int, reason: str, at: int) -> None:
        """Keeps a report; a second one of the same user and message changes nothing.

        Raises: Unavailable, UnknownOutcome.
        """


class Deps(msgspec.Struct, frozen=True):
    """What `report` needs."""

    reports: Reports


class HasDeps(receipts.HasDeps, Protocol):
    """Deps of the function that serves it."""

    @property
    def reporting(self) -> Deps: ...


async def report(cmd: ReportMessage, ctx: Context[HasDeps]) -> Outcome[Empty]:
    """Only what one sees oneself can be reported."""
    message, _ = await receipts.seen(ctx.deps.receipts, ctx.user_id, cmd.msg_id)
    await ctx.deps.reporting.reports.add(message, ctx.user_id, cmd.reason, ctx.at)
    return Outcome(Empty())


class SqlReports:
    """`Reports` in SQL."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._rows = Inserter(engine)

    async def add(self, message: MessageRow, reporter: int, reason: str, at: int) -> None:
        """See `Reports.add`."""
        await to_the_end(self._add(message, reporter, reason, at))

    async def _add(self, message: MessageRow, reporter: int, reason: str, at: int) -> None:
        row = (
            message.id,
            reporter,
            message.conversation_id,
            reason,
            message.content[:KEPT],
            at,
        )
        async with writing(self._engine) as connection:
            await self._rows.insert(
                connection, message_report, [row], self._rows.unless_there("reason")
            )
