"""`message.search` and `message.report` on SQL: what the index names, and what the user may see of it."""

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from functions.history import receipts, reporting, searching
from functions.history.book import SqlBook
from functions.history.index import SqlIndex
from functions.history.searching import search
from functions.history.store import SqlArchive
from functions.search_index.indexer import Entry
from functions.search_index.store import SqlTokens
from migrations.schema import upgrade
from schemas.search import ReportMessage, SearchMessages
from shared import tables
from shared.adapters.bulk import Inserter
from shared.adapters.sql import open_engine
from shared.errors import BadRequest, Forbidden, NotFound, NotMember
from shared.function import Context
from shared.ids import month_of, now_ms, snowflake, snowflake_ms
from shared.lookup import Messages
from shared.words import tokens_of

ALICE, BOB, CAROL = 1, 2, 3
WITH_BOB, WITH_CAROL, FOREIGN, GROUP = "p_1_2", "p_1_3", "p_2_3", "g_7"
NOW = now_ms()


@pytest.fixture
async def engine(db_url: str) -> AsyncIterator[AsyncEngine]:
    opened = open_engine(db_url)
    await upgrade(opened)
    yield opened
    await opened.dispose()


class Store:
    """Messages as the timeline stores them, and their words as `search_index` does."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.ids: dict[tuple[str, int], int] = {}

    async def member(self, user_id: int, conversation_id: str, **columns: Any) -> None:
        values = {"user_id": user_id, "conversation_id": conversation_id} | columns
        async with self.engine.begin() as connection:
            await connection.execute(tables.user_conversation.insert(), values)

    async def put(self, conversation_id: str, seq: int, content: str, **columns: Any) -> str:
        msg_id = snowflake(NOW - 60_000 + len(self.ids), 0, 0)
        self.ids[conversation_id, seq] = msg_id
        table = tables.message_table(month_of(snowflake_ms(msg_id)))
        row = {
            "id": msg_id,
            "msg_id": str(msg_id),
            "conversation_id": conversation_id,
            "sender_id": BOB,
            "msg_type": 1,
            "content": content,
            "status": 0,
            "created_at": "2026-11-23 12:00:00.000",
            "seq": seq,
            "rev": 0,
            "client_msg_id": f"m{seq}",
        } | columns
        async with self.engine.begin() as connection:
            await Inserter(self.engine).insert(
                connection, table, [tuple(row.get(name) for name in list(table.c.keys())[:13])]
            )
        tokens = frozenset(tokens_of(content))
        await SqlTokens(self.engine).store([Entry(conversation_id, msg_id, tokens, stale=False)])
        return str(msg_id)

    async def change(self, msg_id: str, **columns: Any) -> None:
        table = tables.message_table(month_of(snowflake_ms(int(msg_id))))
        async with self.engine.begin() as connection:
            await connection.execute(
                update(table).where(table.c.id == int(msg_id)).values(**columns)
            )


@pytest.fixture
async def store(engine: AsyncEngine) -> Store:
    stored = Store(engine)
    for user_id, conversation_id in (
        (ALICE, WITH_BOB),
        (BOB, WITH_BOB),
        (ALICE, WITH_CAROL),
        (BOB, FOREIGN),
        (CAROL, FOREIGN),
    ):
        await stored.member(user_id, conversation_id)
    return stored


def context(engine: AsyncEngine, user_id: int = ALICE) -> Context[Any]:
    archive = SqlArchive(engine)
    deps = SimpleNamespace(
        searching=searching.Deps(SqlIndex(engine)),
        receipts=receipts.Deps(Messages(engine), archive, SqlBook(engine)),
        reporting=reporting.Deps(reporting.SqlReports(engine)),
    )
    return Context(user_id, deps, NOW)


async def found(engine: AsyncEngine, q: str, user_id: int = ALICE, **more: Any) -> list[str]:
    page = (await search(SearchMessages(q, **more), context(engine, user_id))).reply
    assert page is not None
    return [msgspec.json.decode(message)["content"] for message in page.messages]


async def test_words_of_ones_own_conversations_newest_first(
    engine: AsyncEngine, store: Store
) -> None:
    await store.put(WITH_BOB, 1, "Shall we meet at the harbour?")
    await store.put(WITH_CAROL, 1, "The HARBOUR was closed")
    await store.put(FOREIGN, 1, "harbour, but not yours")
    await store.put(WITH_BOB, 2, "見に行こう、東京タワー")
    assert await found(engine, "harb") == [
        "The HARBOUR was closed",
        "Shall we meet at the harbour?",
    ]
    assert await found(engine, "harbour the") == [
        "The HARBOUR was closed",
        "Shall we meet at the harbour?",
    ]
    assert await found(engine, "harbour shall") == ["Shall we meet at the harbour?"]
    assert await found(engine, "東京タワー") == ["見に行こう、東京タワー"]
    assert await found(engine, "京") == ["見に行こう、東京タワー"]
    assert await found(engine, "harbour", conversation_id=WITH_CAROL) == ["The HARBOUR was closed"]
    assert await found(engine, "nothing such") == []
    assert await found(engine, "harbour", user_id=99) == []


async def test_recalled_never_and_edits_by_their_new_text_even_before_the_index_knows(
    engine: AsyncEngine, store: Store
) -> None:
    recalled = await store.put(WITH_BOB, 1, "secret word")
    edited = await store.put(WITH_BOB, 2, "old word")
    await store.change(recalled, status=1, content="")
    await store.change(edited, content="new text")
    assert await found(engine, "word") == []


async def test_what_one_cleared_or_was_no_member_for_is_not_found(
    engine: AsyncEngine, store: Store
) -> None:
    await store.member(ALICE, GROUP, from_seq=2, until_seq=4)
    await store.member(CAROL, GROUP, cleared_seq=3)
    for seq in range(1, 6):
        await store.put(GROUP, seq, f"word {seq}", sender_id=CAROL)
    assert await found(engine, "word") == ["word 4", "word 3"]
    assert await found(engine, "word", user_id=CAROL) == ["word 5", "word 4"]
    with pytest.raises(NotMember):
        await found(engine, "word", user_id=BOB, conversation_id=GROUP)
    with pytest.raises(Forbidden):
        await found(engine, "word", conversation_id=FOREIGN)


async def test_pages(engine: AsyncEngine, store: Store) -> None:
    for seq in range(1, 31):
        await store.put(WITH_BOB, seq, f"word {seq}" if seq % 2 else "other")
    seen: list[str] = []
    cursor = None
    while True:
        page = (await search(SearchMessages("word", cursor=cursor, limit=4), context(engine))).reply
        assert page is not None
        seen += [msgspec.json.decode(message)["content"] for message in page.messages]
        if (cursor := page.next) is None:
            break
    assert seen == [f"word {seq}" for seq in range(29, 0, -2)]


@pytest.mark.parametrize("q", ["…", "🙂", " "])
async def test_nothing_to_look_for(engine: AsyncEngine, q: str) -> None:
    with pytest.raises(BadRequest):
        await found(engine, q)


async def test_a_cursor_that_is_none(engine: AsyncEngine) -> None:
    for cursor in ("x", "-1", "9" * 30):
        with pytest.raises(BadRequest):
            await found(engine, "word", cursor=cursor)


async def test_a_query_is_never_sql(engine: AsyncEngine, store: Store) -> None:
    await store.put(WITH_BOB, 1, "it's \"100%\" \\ done; DROP TABLE x'00'")
    assert len(await found(engine, "it's \\ \"100% x'00")) == 1


async def test_a_report_keeps_the_content_once(engine: AsyncEngine, store: Store) -> None:
    msg_id = await store.put(WITH_BOB, 1, "an insult" * 200)
    for reason in ("first", "second"):
        await reporting.report(ReportMessage(msg_id, reason), context(engine))
    await store.change(msg_id, status=1, content="")
    async with engine.connect() as connection:
        rows = (await connection.execute(select(tables.message_report))).all()
    assert [(r.reporter_id, r.reason, r.content) for r in rows] == [
        (ALICE, "first", ("an insult" * 200)[: reporting.KEPT])
    ]
    with pytest.raises(NotFound):
        await reporting.report(ReportMessage(msg_id, "not mine"), context(engine, CAROL))
