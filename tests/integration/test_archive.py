"""Messages out of SQL, alike on SQLite and MariaDB: all that are asked for, byte for byte as they were pushed."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from functions.history.store import SqlArchive
from migrations.schema import upgrade
from schemas.messages import Message, Origin, Reaction
from schemas.types import MAX_CONTENT
from shared.adapters.sql import open_engine
from shared.lookup import by_ids, json_of
from tests.archive import Archive

MONTH_MS = 32 * 86_400_000
CHARACTERS = "".join(map(chr, [*range(0x250), 0x2028, 0xD7FF, 0xE000, 0xFEFF, 0xFFFF, 0x1F600]))


@pytest.fixture
async def engine(db_url: str) -> AsyncIterator[AsyncEngine]:
    opened = open_engine(db_url)
    await upgrade(opened)
    yield opened
    await opened.dispose()


async def test_a_message_comes_back_as_it_was_pushed(engine: AsyncEngine) -> None:
    archive = Archive(engine)
    origin = Origin("1", "p_1_3", 3, 5)
    texts: list[tuple[str, dict[str, Any]]] = [
        (CHARACTERS, {"receiver_id": 2}),
        (
            "\"\\'%s%%?:x\\n\\u0041",
            {"extra": msgspec.Raw(b'{"b": 1.50,"a":[1e400, "\\u00e9"]}')},
        ),
        ("\U0001f44d" * MAX_CONTENT, {"extra": msgspec.Raw(b"null")}),
        ("\x01" * MAX_CONTENT, {"mentions": ["all", 7], "reply_to": "17", "file_id": "f"}),
        ("", {"forward": origin, "pinned": True, "edited_at": 9, "rev": 1 << 53}),
        ("null", {"group_id": (1 << 63) - 1, "reactions": [Reaction("\U0001f44d", 2, [1, 2])]}),
    ]
    sent = [await archive.send("p_1_2", 1, text, **fields) for text, fields in texts]
    pushed = [msgspec.json.encode(message) for message in sent]
    read = await SqlArchive(engine).read("p_1_2", 1, 9)
    assert list(read) == list(enumerate(pushed, 1))
    async with engine.connect() as connection:
        rows = await by_ids(connection, [int(message.msg_id) for message in sent])
    assert [json_of(rows[int(message.msg_id)]) for message in sent] == pushed


async def test_pages_that_are_read_together_lie_in_any_months(engine: AsyncEngine) -> None:
    archive, rng = Archive(engine), random.Random(7)
    sent: dict[str, list[Message]] = {"p_1_2": [], "g_1": [], "p_1_9": []}
    for _ in range(3):
        for _ in range(12):
            conversation_id = rng.choice(["p_1_2", "g_1"])
            sent[conversation_id].append(await archive.send(conversation_id, 1))
        archive.skip(MONTH_MS)
    asked = [
        (rng.choice(sorted(sent)), first, first + rng.randrange(-1, 20))
        for first in [rng.randrange(1, 20) for _ in range(60)]
    ]
    store = SqlArchive(engine)
    read = await asyncio.gather(*(store.read(*which) for which in asked))
    for (conversation_id, first, last), found in zip(asked, read, strict=True):
        assert list(found) == [
            (m.seq, msgspec.json.encode(m)) for m in sent[conversation_id] if first <= m.seq <= last
        ]
