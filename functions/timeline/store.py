"""The timeline's storage in SQL.

Loads and commits guard each other: a commit changes `log_progress` by compare-and-set on the whole old row, and a load
reads it in the same snapshot. An owner that another one has overtaken can therefore neither store anything nor go on
from state of another point of the log.
"""

import math
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeVar

import msgspec
from sqlalchemy import and_, func, or_, select
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from functions.timeline import tracing
from functions.timeline.clashes import ClashError, explain
from functions.timeline.heads import Newest
from functions.timeline.pending import Pending
from functions.timeline.state import (
    Answer,
    Conversation,
    Place,
    Position,
    Post,
    Progress,
    Reactor,
    Row,
)
from shared import months, tables
from shared.adapters import bulk
from shared.adapters.sql import to_the_end
from shared.ids import month_of, snowflake, snowflake_ms, snowflake_partition
from shared.lookup import Months, by_ids, message_of
from shared.patience import AwayError

P = ParamSpec("P")
T = TypeVar("T")


class StoreAwayError(AwayError):
    """SQL did not do it, or nobody knows whether it did. All calls may be repeated."""


class FencedError(Exception):
    """Another owner has moved on these partitions: what this one holds of them is worthless."""

    def __init__(self, partitions: Iterable[int]) -> None:
        self.partitions = frozenset(partitions)
        super().__init__(f"another owner has moved on partitions {sorted(self.partitions)}")


class Loaded(msgspec.Struct, frozen=True):
    """What SQL has of the conversations and keys that were asked for."""

    conversations: dict[str, Conversation]
    answers: dict[bytes, Answer]


class Referred(msgspec.Struct, frozen=True):
    """What SQL has of the messages and positions that changes refer to."""

    posts: dict[int, Post]
    positions: dict[Place, Position]


class Store(Protocol):
    """What the timeline needs of SQL. Every method raises StoreAwayError if SQL is away."""

    async def claim(self, partitions: Iterable[int]) -> dict[int, Progress]:
        """How far each partition is stored; makes the row of one that was never read."""

    async def lately(self, progress: Mapping[int, Progress]) -> Sequence[Newest]:
        """How far the conversations are whose last message is among the last ones of their partition.

        Those are what is less than LATELY_MS older than its newest.
        """

    async def load(
        self, expected: Mapping[int, AbstractSet[Progress]], ids: list[str], keys: list[bytes]
    ) -> Loaded:
        """Reads conversations and keys in one snapshot.

        Raises: FencedError unless `log_progress` is as expected: one of a set of values for each partition, to which
        more may be added meanwhile.
        """

    async def load_referred(
        self, expected: Mapping[int, AbstractSet[Progress]], posts: list[int], places: list[Place]
    ) -> Referred:
        """Reads messages by id, and positions of members, in one snapshot. Raises: FencedError, as `load`."""

    async def commit(self, batch: Mapping[int, Pending]) -> None:
        """Stores the pending rows of partitions, all or nothing. Repeating a commit that succeeded does nothing.

        Raises: FencedError, ClashError.
        """

    async def ensure_months(self, needed: Iterable[int]) -> None:
        """Creates the tables of these months and of the ones after them."""


def _sql(method: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Turns SQL's errors into StoreAwayError, and lets statements end before their caller is cancelled."""

    @wraps(method)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await to_the_end(method(*args, **kwargs))
        except (SQLAlchemyError, OSError) as error:
            raise StoreAwayError(str(error).partition("\n")[0]) from error

    return call


_SPOKEN = ("changed_ms", "max_seq")
"""The list of conversations goes by their newest message: no change or read may move one up."""
LATELY_MS = 10_000
"""Far longer than from a message to its head."""
APART_MS = 60_000
"""Partitions that stand so far behind the others have had their heads."""
UNKNOWN = "~"
"""As `max_uuid`: above all of them."""
_PARTITION, _NEXT = "`partition`", "`next`"
"""Reserved words on some of the servers; all of them take the backticks."""

_CHANGING = (
    "content",
    "status",
    "rev",
    "reply_to",
    "mentions",
    "file_id",
    "extra",
    "edited_ms",
    "forward",
    "reactions",
    "pinned",
)
"""Columns of a message that changes touch."""
MAX_REMOVED = 500
"""Keys in one DELETE."""

_PROGRESS = (
    f"SELECT {_PARTITION}, {_NEXT}, last_ms, counter FROM log_progress WHERE {_PARTITION} IN ("  # noqa: S608
)
# Three questions in one statement, which is a snapshot by itself and one round trip. One column of JSON: the MySQL
# driver is Python, and most of what a query costs it is for each column. All partitions are one row likewise.
_ALL_PROGRESS = (
    f"SELECT JSON_ARRAY('progress', %s(JSON_ARRAY({_PARTITION}, {_NEXT}, last_ms, counter)))"  # noqa: S608
    f" FROM log_progress WHERE {_PARTITION} IN ("
)
# An older release leaves `max_uuid` as it is while messages go on: then nothing is known.
_CONVERSATIONS = (
    " UNION ALL SELECT JSON_ARRAY('conversation', conversation_id, max_seq, max_rev,"  # noqa: S608
    " COALESCE((SELECT MAX(month) FROM conversation_month m"
    " WHERE m.conversation_id = c.conversation_id), 0), message_rev, members_version,"
    f" CASE WHEN max_uuid_seq = max_seq THEN max_uuid ELSE '{UNKNOWN}' END,"
    " CASE WHEN SUBSTR(conversation_id, 1, 2) = 'g_' THEN COALESCE((SELECT MAX(from_seq) FROM user_conversation u"
    " WHERE u.conversation_id = c.conversation_id AND until_seq IS NULL), 0) ELSE 0 END)"
    " FROM conversation c WHERE conversation_id IN ("
)
_ANSWERS = (
    " UNION ALL SELECT JSON_ARRAY('answer', HEX(`key`), HEX(digest), msg_id, seq)"
    " FROM message_key WHERE `key` IN ("
)


class _ProgressFound(msgspec.Struct, tag="progress", array_like=True):
    partitions: list[tuple[int, int, int, int]] | None  # MySQL's word for none of them


class _ConversationFound(msgspec.Struct, tag="conversation", array_like=True):
    conversation_id: str
    max_seq: int
    max_rev: int
    month: int
    message_rev: int
    members_version: int
    max_uuid: str
    border: int


class _AnswerFound(msgspec.Struct, tag="answer", array_like=True):
    key: str
    digest: str
    msg_id: int
    seq: int


_decode_found = msgspec.json.Decoder(_ProgressFound | _ConversationFound | _AnswerFound).decode


class SqlStore:
    """`Store` on SQLite, MySQL and MariaDB."""

    def __init__(self, engine: AsyncEngine, reader: AsyncEngine | None = None) -> None:
        """reader: for single statements; the same engine unless given."""
        self._engine = engine
        self._reader = reader or engine
        self._sqlite = engine.dialect.name == "sqlite"
        self._all_progress = _ALL_PROGRESS % (
            "json_group_array" if self._sqlite else "JSON_ARRAYAGG"
        )
        self._months: set[int] = set()
        self._rows = bulk.Inserter(engine)
        self._tables = Months()
        self._columns = {name: table.c.keys() for name, table in tables.metadata.tables.items()}

    @_sql
    async def claim(self, partitions: Iterable[int]) -> dict[int, Progress]:
        """See `Store.claim`."""
        wanted = list(partitions)
        first = Progress()
        async with self._engine.begin() as connection:
            rows = [(partition, first.next, first.last_ms, first.counter) for partition in wanted]
            await self._rows.insert(
                connection, tables.log_progress, rows, self._rows.unless_there("next")
            )
            return await _progress(connection, wanted)

    @_sql
    async def lately(self, progress: Mapping[int, Progress]) -> Sequence[Newest]:
        """See `Store.lately`. Ids of messages begin with their time, so this reads the end of a primary key."""
        since = {p: moved.last_ms - LATELY_MS for p, moved in progress.items()}
        newest = max(since.values())
        first = min(ms for ms in since.values() if ms >= newest - APART_MS)
        ends = [snowflake(ms, 0, 0) for ms in (first, newest)]
        found: list[Newest] = []
        async with self._engine.connect() as connection:
            there = await self._tables.of(connection, ends)
            for month in sorted({month_of(snowflake_ms(i)) for i in there}):
                table, c = tables.message_table(month), tables.conversation.c
                columns = (c.conversation_id, c.max_seq, c.max_rev, c.members_version)
                query = (
                    select(*columns, func.max(table.c.id))
                    .join_from(
                        table, tables.conversation, table.c.conversation_id == c.conversation_id
                    )
                    .where(table.c.id >= ends[0])
                    .group_by(*columns)
                )
                for *one, last in await connection.execute(query):
                    if snowflake_ms(last) >= since.get(snowflake_partition(last), math.inf):
                        found.append(Newest(*one))
        return found

    @_sql
    async def load(
        self, expected: Mapping[int, AbstractSet[Progress]], ids: list[str], keys: list[bytes]
    ) -> Loaded:
        """See `Store.load`."""
        statement = f"{self._all_progress}{bulk.literals(expected)})"
        if ids:
            statement += f"{_CONVERSATIONS}{bulk.literals(ids)})"
        if keys:
            statement += f"{_ANSWERS}{bulk.literals(keys)})"
        async with self._reader.connect() as connection:
            rows = await _query(connection, statement)
        stored: dict[int, Progress] = {}
        conversations: dict[str, Conversation] = {}
        answers: dict[bytes, Answer] = {}
        for (json,) in rows:
            found = _decode_found(json)
            if type(found) is _AnswerFound:
                answers[bytes.fromhex(found.key)] = Answer(
                    bytes.fromhex(found.digest), found.msg_id, found.seq
                )
            elif type(found) is _ConversationFound:
                conversations[found.conversation_id] = Conversation(
                    found.max_seq,
                    found.max_rev,
                    found.month,
                    found.message_rev,
                    found.members_version,
                    found.max_uuid,
                    found.border,
                )
            elif type(found) is _ProgressFound:
                stored = {p: Progress(*row) for p, *row in found.partitions or ()}
        _fence(expected, stored)
        return Loaded(conversations, answers)

    @_sql
    async def load_referred(
        self, expected: Mapping[int, AbstractSet[Progress]], posts: list[int], places: list[Place]
    ) -> Referred:
        """See `Store.load_referred`."""
        async with self._engine.connect() as connection:
            there = await self._tables.of(connection, posts)
        async with self._snapshot() as connection:
            _fence(expected, await _progress(connection, expected))
            found = {i: message_of(row) for i, row in (await by_ids(connection, there)).items()}
            reactors = await _reactors(connection, [i for i, m in found.items() if m.reactions])
            positions = await _positions(connection, places)
        return Referred(
            {i: Post(message, tuple(reactors.get(i, ()))) for i, message in found.items()},
            positions,
        )

    @_sql
    async def commit(self, batch: Mapping[int, Pending]) -> None:
        """See `Store.commit`."""
        try:
            await self._commit_once(batch)
        except DataError as error:
            if refused := await self._refused(batch):
                raise ClashError(refused, "SQL refuses it") from error
            raise
        except IntegrityError as error:
            async with self._snapshot() as connection:
                await explain(connection, batch, error)
            await self._commit_once(batch)

    @_sql
    async def ensure_months(self, needed: Iterable[int]) -> None:
        """See `Store.ensure_months`."""
        wanted = {m for month in needed for m in (month, months.next_month(month))} - self._months
        if wanted:
            await months.ensure_months(self._engine, wanted)
            self._months |= wanted

    async def _commit_once(self, batch: Mapping[int, Pending]) -> None:
        """Commits what an earlier try, whose answer got lost, has not committed yet."""
        try:
            await self._commit(batch)
        except _MovedError as moved:
            undone = {
                p: pending for p, pending in batch.items() if moved.stored.get(p) != pending.new
            }
            if lost := [p for p, pending in undone.items() if moved.stored.get(p) != pending.old]:
                raise FencedError(lost) from None
            if undone:
                await self._commit(undone)

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[AsyncConnection]:
        async with self._engine.connect() as connection:
            if self._sqlite:  # whose driver begins a transaction only before the first write
                await connection.exec_driver_sql("BEGIN")
            yield connection

    async def _commit(self, batch: Mapping[int, Pending]) -> None:
        with tracing.inserting(batch.values(), self._engine.dialect):
            await self._insert_all(batch)

    async def _insert_all(self, batch: Mapping[int, Pending]) -> None:
        """Progress first: a late owner fails before it has written anything. The rest is plain INSERT: with the
        compare-and-set no row can be there already, so one that is must be seen, not skipped.
        """
        async with self._engine.begin() as connection:
            moved = await connection.exec_driver_sql(_compare_and_set(batch))
            if moved.rowcount != len(batch):
                raise _MovedError(await _progress(connection, batch))
            parts = list(batch.values())
            for month in sorted({month for part in parts for month in part.messages}):
                rows = [row for part in parts for row in part.messages.get(month, ())]
                await self._rows.insert(connection, tables.message_table(month), rows)
            for month in sorted({month for part in parts for month in part.changes}):
                table = tables.message_table(month)
                rows = [row for part in parts for row in part.changes.get(month, {}).values()]
                await self._rows.insert(connection, table, rows, self._rows.replacing(*_CHANGING))
            await self._rows.insert(
                connection, tables.message_key, [row for part in parts for row in part.keys]
            )
            heads = [row for part in parts for row in part.heads.values()]
            await self._rows.insert(
                connection,
                tables.conversation,
                heads,
                self._rows.replacing(
                    "max_seq",
                    "max_rev",
                    "message_rev",
                    "members_version",
                    "max_uuid",
                    "max_uuid_seq",
                    newer=_SPOKEN,
                ),
            )
            opened = [row for part in parts for row in part.months]
            await self._rows.insert(
                connection, tables.conversation_month, opened, self._rows.unless_there("month")
            )
            joined = [row for part in parts for row in part.memberships]
            await self._rows.insert(
                connection, tables.user_conversation, joined, self._rows.unless_there("user_id")
            )
            borders = ("read_seq", "read_rev", "delivered_seq", "from_seq", "until_seq")
            for rows, columns in (
                ([row for part in parts for row in part.joins.values()], borders),
                ([row for part in parts for row in part.leaves.values()], ("until_seq",)),
            ):
                await self._rows.insert(
                    connection, tables.user_conversation, rows, self._rows.replacing(*columns)
                )
            await self._rows.insert(
                connection,
                tables.user_conversation,
                [row for part in parts for row in part.positions.values()],
                self._rows.replacing("read_seq", "read_rev", "delivered_seq"),
            )
            for name in sorted({name for part in parts for name in part.removals}):
                await self._remove(connection, name, [k for p in parts for k in p.removals[name]])
            for name in sorted({name for part in parts for name in part.additions}):
                rows = [row for part in parts for row in part.additions[name].values()]
                first = self._columns[name][0]
                await self._rows.insert(
                    connection, tables.metadata.tables[name], rows, self._rows.unless_there(first)
                )

    async def _remove(self, connection: AsyncConnection, name: str, keys: list[Row]) -> None:
        """Deletes the rows whose key begins with one of these."""
        columns = self._columns[name]
        if self._sqlite:
            for key in keys:
                where = " AND ".join(f"{column}=?" for column in columns[: len(key)])
                await connection.exec_driver_sql(f"DELETE FROM {name} WHERE {where}", key)  # noqa: S608
            return
        for i in range(0, len(keys), MAX_REMOVED):
            conditions = [
                " AND ".join(
                    f"{column}={bulk.literals([value])}"
                    for column, value in zip(columns, key, strict=False)
                )
                for key in keys[i : i + MAX_REMOVED]
            ]
            where = " OR ".join(f"({condition})" for condition in conditions)
            await _query(connection, f"DELETE FROM {name} WHERE {where}")  # noqa: S608 - escaped

    async def _refused(self, batch: Mapping[int, Pending]) -> dict[int, set[int]]:
        """Ids of the messages whose row SQL refuses, found by trying each alone."""
        refused: dict[int, set[int]] = {}
        for partition, pending in batch.items():
            for month, rows in pending.messages.items():
                for row in rows:
                    try:
                        async with self._engine.connect() as connection:  # never committed
                            await self._rows.insert(connection, tables.message_table(month), [row])
                    except DataError:
                        refused.setdefault(partition, set()).add(row[0])
                    except IntegrityError:
                        pass  # not what is looked for
        return refused


def _fence(expected: Mapping[int, AbstractSet[Progress]], stored: Mapping[int, Progress]) -> None:
    """Raises: FencedError."""
    if moved := [p for p, known in expected.items() if stored.get(p) not in known]:
        raise FencedError(moved)


async def _reactors(connection: AsyncConnection, ids: list[int]) -> dict[int, list[Reactor]]:
    c = tables.message_reaction.c
    found: dict[int, list[Reactor]] = {}
    if ids:
        query = select(c.msg_id, c.emoji, c.user_id).where(c.msg_id.in_(ids)).order_by(c.rev)
        for msg_id, emoji, user_id in await connection.execute(query):
            found.setdefault(msg_id, []).append(Reactor(emoji, user_id))
    return found


async def _positions(connection: AsyncConnection, places: list[Place]) -> dict[Place, Position]:
    """Of those who are members."""
    c = tables.user_conversation.c
    if not places:
        return {}
    query = select(c.user_id, c.conversation_id, c.read_seq, c.read_rev, c.delivered_seq).where(
        or_(*(and_(c.user_id == u, c.conversation_id == i) for u, i in places)),
        c.until_seq.is_(None),
    )
    return {(row[0], row[1]): Position(*row[2:]) for row in await connection.execute(query)}


class _MovedError(Exception):
    """The compare-and-set hit fewer rows than it should; `stored` is what there is."""

    def __init__(self, stored: dict[int, Progress]) -> None:
        super().__init__()
        self.stored = stored


async def _query(connection: AsyncConnection, statement: str) -> Iterable[Any]:
    """Rows of a query whose literals are written out."""
    return await connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


async def _progress(connection: AsyncConnection, partitions: Iterable[int]) -> dict[int, Progress]:
    rows = await _query(connection, f"{_PROGRESS}{bulk.literals(partitions)})")
    return {row[0]: Progress(row[1], row[2], row[3]) for row in rows}


def _compare_and_set(batch: Mapping[int, Pending]) -> str:
    """Moves `log_progress` of all partitions in one statement, where it is as this owner left it. Numbers only."""
    moves = [
        (f"WHEN {partition} THEN", pending.new, partition, pending.old)
        for partition, pending in batch.items()
    ]

    def case(field: str) -> str:
        cases = " ".join(f"{when} {getattr(new, field)}" for when, new, _, _ in moves)
        return f"CASE {_PARTITION} {cases} END"

    conditions = " OR ".join(
        f"({_PARTITION}={partition} AND {_NEXT}={old.next} AND last_ms={old.last_ms} AND counter={old.counter})"
        for _, _, partition, old in moves
    )
    return (
        f"UPDATE log_progress SET {_NEXT}={case('next')}, last_ms={case('last_ms')},"  # noqa: S608 - our numbers
        f" counter={case('counter')} WHERE {conditions}"
    )
