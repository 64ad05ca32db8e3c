"""The index of words in SQL: what facts make of it, and that a reader goes on where it was."""

from collections.abc import AsyncIterator

import msgspec
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from functions.search_index.indexer import Indexer, entry_of
from functions.search_index.store import SqlTokens
from migrations.schema import upgrade
from schemas.messages import Message
from shared.adapters.sql import open_engine
from shared.log import Record
from shared.reader_progress import SqlProgress
from shared.tables import message_token

CONVERSATION = "p_1_2"


@pytest.fixture
async def engine(db_url: str) -> AsyncIterator[AsyncEngine]:
    opened = open_engine(db_url)
    await upgrade(opened)
    yield opened
    await opened.dispose()


@pytest.fixture
def indexer(engine: AsyncEngine) -> Indexer:
    return Indexer(SqlProgress(engine, "search_index"), SqlTokens(engine))


def fact(kind: str, msg_id: int, content: str, *, msg_type: int = 1, status: int = 0) -> bytes:
    message = Message(
        msg_id=str(msg_id),
        conversation_id=CONVERSATION,
        sender_id=1,
        msg_type=msg_type,
        content=content,
        timestamp=0,
        seq=msg_id,
        client_msg_id=f"m{msg_id}",
        status=status,
    )
    return b'{"type":"message.%b","id":"%d","data":%b}' % (
        kind.encode(),
        msg_id,
        msgspec.json.encode(message),
    )


async def index(indexer: Indexer, *facts: bytes) -> None:
    records = [Record(0, i, 0, value) for i, value in enumerate(facts)]
    assert await indexer.handle(records) == {0: len(facts)}


async def tokens(engine: AsyncEngine, msg_id: int) -> set[str]:
    c = message_token.c
    query = select(c.token).where(c.conversation_id == CONVERSATION, c.msg_id == msg_id)
    async with engine.connect() as connection:
        return {token.decode() for token in (await connection.execute(query)).scalars()}


async def test_sent_edited_recalled(engine: AsyncEngine, indexer: Indexer) -> None:
    await index(indexer, fact("sent", 1, "Good morning"), fact("sent", 2, "東京へ"))
    assert await tokens(engine, 1) == {"good", "morning"}
    assert await tokens(engine, 2) == {"東京", "京へ", "へ"}
    await index(indexer, fact("edited", 1, "Good evening"))
    assert await tokens(engine, 1) == {"good", "evening"}
    await index(indexer, fact("recalled", 1, "", status=1))
    assert await tokens(engine, 1) == set()
    assert await tokens(engine, 2) == {"東京", "京へ", "へ"}


async def test_the_same_again_and_several_changes_in_one_batch(
    engine: AsyncEngine, indexer: Indexer
) -> None:
    sent = fact("sent", 1, "first words words")
    await index(indexer, sent, sent)
    await index(indexer, sent, fact("edited", 1, "other text"), fact("sent", 3, "gone"))
    await index(indexer, fact("sent", 4, "gone too"), fact("recalled", 4, "", status=1))
    assert await tokens(engine, 1) == {"other", "text"}
    assert await tokens(engine, 4) == set()


async def test_many_tokens_and_strange_letters(engine: AsyncEngine, indexer: Indexer) -> None:
    content = " ".join(f"w{i}" for i in range(3_000)) + " it's \\ %s '北京' " + "x" * 500
    await index(indexer, fact("sent", 1, content))
    found = await tokens(engine, 1)
    assert len(found) == 3_000 + 2 + 2 + 1
    assert {"w2999", "it", "s", "北京", "京", "x" * 32} <= found


async def test_files_are_found_by_name_and_what_is_no_fact_is_passed_over(
    engine: AsyncEngine, indexer: Indexer
) -> None:
    await index(
        indexer,
        fact("sent", 1, '{"file_id":"f1","name":"Report 2026.pdf"}', msg_type=3),
        fact("sent", 2, '{"kind":"group.joined"}', msg_type=0),
        b"rubbish",
        b'{"type":"message.sent","id":"x","data":{}}',
        b'{"type":"user.deleted","id":"x"}',
    )
    assert await tokens(engine, 1) == {"report", "2026", "pdf"}
    assert await tokens(engine, 2) == set()
    assert indexer.counters.unread == 2


def test_facts_of_other_kinds_change_nothing() -> None:
    assert entry_of(fact("reacted", 1, "Hello")) is None
