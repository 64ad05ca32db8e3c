"""Groups in the timeline: one publish for all members, borders, and answers that come after the COMMIT."""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from functions.timeline.core import apply, prepare
from functions.timeline.heads import Newest
from functions.timeline.metrics import Counters
from functions.timeline.pending import Answered, Pending
from functions.timeline.publish import Publisher
from functions.timeline.state import (
    Accepted,
    Conversation,
    Dead,
    Effect,
    Moved,
    Progress,
    Refused,
    State,
    Unchanged,
)
from functions.timeline.store import SqlStore
from migrations.schema import upgrade
from schemas.messages import Message
from schemas.records import AnyRequest, EditRequested, ReadRequested, SendRequested, SystemRequested
from shared import tables
from shared.adapters.memory import MemoryBus
from shared.adapters.sql import open_engine
from shared.bus import header
from shared.ids import EPOCH_MS, month_of
from shared.log import Record

NOW = EPOCH_MS + 1_000_000
GROUP = "g_5"
INBOX = "_INBOX.e." + "a" * 22 + ".1"


def changed(name: str, version: int, **more: Any) -> SystemRequested:
    return SystemRequested(
        conversation_id=GROUP,
        user_id=1,
        at=0,
        reply=INBOX,
        conn="mine",
        client_msg_id=name,
        content=f'{{"kind":"{name}"}}',
        members_version=version,
        answer=msgspec.Raw(b'{"done":"%b"}' % name.encode()),
        **more,
    )


def sent(user_id: int, name: str, conn: str = "") -> SendRequested:
    return SendRequested(
        conversation_id=GROUP, user_id=user_id, at=0, client_msg_id=name, msg_type=1, content="x",
        conn=conn, reply=INBOX,
    )  # fmt: skip


def read(user_id: int, seq: int) -> ReadRequested:
    return ReadRequested(conversation_id=GROUP, user_id=user_id, at=0, seq=seq)


class Road:
    """A partition of the timeline without its shell."""

    def __init__(self) -> None:
        self.state = State(3, Progress())
        self.state.conversations[GROUP] = Conversation()
        self.pending = Pending(Progress())
        self.bus = MemoryBus()
        self.published: list[tuple[str, bytes, bytes]] = []
        self.bus.listen(">", lambda s, _r, p, h: self.published.append((s, p, h)))
        self._offset = 0

    async def run(self, *requests: AnyRequest) -> list[Effect]:
        effects = []
        for request in requests:
            self._offset += 1
            record = Record(3, self._offset, NOW + self._offset, msgspec.json.encode(request))
            effects.append(apply(self.state, prepare(record)))
        self.published.clear()
        Publisher(self.bus, Counters()).publish(effects)
        await self.bus.flush()
        self.pending.add(effects, self.state.progress)
        return effects


@pytest.fixture
async def road() -> Road:
    return Road()


async def test_one_publish_for_all_members_names_the_version_they_are_of(road: Road) -> None:
    await road.run(changed("created", 1, joined=[1, 2, 3]))
    ((subject, payload, headers),) = road.published
    assert subject == "im.v1.group.5"
    assert header(headers, b"Im-Members: ") == "1"
    assert header(headers, b"Im-Conn: ") == "", "it is not the answer to the one who asked"
    message = msgspec.json.decode(payload, type=dict[str, Any])["data"]
    assert (message["msg_type"], message["group_id"], message["seq"]) == (0, 5, 1)
    assert "receiver_id" not in message
    await road.run(sent(2, "a", conn="c2"))
    ack, push = road.published
    assert ack[0] == INBOX
    assert (push[0], header(push[2], b"Im-Conn: "), header(push[2], b"Im-Members: ")) == (
        "im.v1.group.5",
        "c2",
        "1",
    )
    await road.run(changed("kicked", 2, left=[3]), sent(1, "b"))
    assert [header(h, b"Im-Members: ") for s, _, h in road.published if s != INBOX] == ["2", "2"]
    publisher = Publisher(road.bus, Counters())
    road.published.clear()
    publisher.head(Newest(GROUP, 4, 0, 2))
    await road.bus.flush()
    ((subject, _, headers),) = road.published
    assert (subject, header(headers, b"Im-Members: ")) == ("im.v1.group.5", "2")


async def test_a_change_is_answered_after_its_commit_also_when_it_is_repeated(road: Road) -> None:
    once, again = await road.run(changed("a", 1, joined=[1]), changed("a", 1, joined=[1]))
    assert type(once) is Accepted
    assert type(again) is Unchanged
    assert [s for s, _, _ in road.published] == ["im.v1.group.5"], "nothing to the asker yet"
    assert road.pending.answers == [Answered(INBOX, b'{"done":"a"}')] * 2
    (other,) = await road.run(changed("a", 1, joined=[2]))
    assert type(other) is Refused
    assert other.code == "conflict"
    assert road.state.conversations[GROUP].max_seq == 1


async def test_only_groups_have_such_changes(road: Road) -> None:
    request = msgspec.structs.replace(changed("a", 1), conversation_id="p_1_2")
    (effect,) = await road.run(request)
    assert type(effect) is Dead


async def test_an_edit_of_what_a_member_must_not_see_is_not_pushed(road: Road) -> None:
    """All members' devices hear of it by the head, and fetch what is there for them."""

    async def edited(post: Effect) -> list[str]:
        assert type(post) is Accepted
        await road.run(
            EditRequested(
                conversation_id=GROUP,
                user_id=1,
                at=0,
                reply=INBOX,
                msg_id=post.row[1],
                content=f"y{road._offset}",
            )
        )
        return [json.loads(p)["type"] for s, p, _ in road.published if s == "im.v1.group.5"]

    _, old = await road.run(changed("a", 1, joined=[1, 2]), sent(1, "m1"))
    assert await edited(old) == ["edit"]
    await road.run(changed("b", 2, joined=[3], sees_all=True))
    assert await edited(old) == ["edit"]
    await road.run(changed("c", 3, joined=[4]))
    assert await edited(old) == []
    (new,) = await road.run(sent(1, "m2"))
    assert await edited(new) == ["edit"]


async def test_who_joins_may_read_at_once_and_who_left_no_more(road: Road) -> None:
    _, _, moved, _, refused = await road.run(
        changed("a", 1, joined=[1, 2]),
        sent(1, "m"),
        read(2, 2),
        changed("b", 2, left=[2]),
        read(2, 3),
    )
    assert type(moved) is Moved
    assert type(refused) is Refused
    assert refused.code == "not_member"


@pytest.fixture
async def engine(db_url: str) -> AsyncIterator[AsyncEngine]:
    opened = open_engine(db_url)
    await upgrade(opened)
    yield opened
    await opened.dispose()


async def borders(engine: AsyncEngine) -> dict[int, Sequence[Any]]:
    c = tables.user_conversation.c
    async with engine.connect() as connection:
        rows = await connection.execute(tables.user_conversation.select().order_by(c.user_id))
        return {r.user_id: (r.read_seq, r.from_seq, r.until_seq, r.pinned) for r in rows}


async def committed(road: Road, store: SqlStore) -> None:
    pending, road.pending = road.pending, Pending(road.pending.new)
    await store.ensure_months({month_of(NOW)})
    await store.commit({3: pending})


async def test_borders_are_stored(road: Road, engine: AsyncEngine) -> None:
    store = SqlStore(engine)
    await store.claim([3])
    await road.run(changed("a", 1, joined=[1, 2]), sent(1, "m1"), read(2, 2))
    await committed(road, store)
    assert await borders(engine) == {1: (0, 0, None, 0), 2: (2, 0, None, 0)}
    async with engine.begin() as connection:
        await connection.execute(tables.user_conversation.update().values(pinned=1))
    await road.run(
        changed("b", 2, left=[2]),
        sent(1, "m2"),
        changed("c", 3, joined=[3]),
        changed("d", 4, joined=[4], sees_all=True),
        changed("e", 5, joined=[9]),
        changed("f", 6, left=[9]),
    )
    await committed(road, store)
    assert await borders(engine) == {
        1: (0, 0, None, 1),
        2: (2, 0, 3, 1),
        3: (4, 4, None, 0),
        4: (5, 0, None, 0),
        9: (6, 6, 8, 0),
    }
    await road.run(sent(1, "m3"), changed("g", 7, joined=[2], left=[3]))
    await committed(road, store)
    found = await borders(engine)
    assert (found[2], found[3]) == ((9, 9, None, 1), (4, 4, 10, 0))
    loaded = await store.load({3: {road.state.progress}}, [GROUP], [])
    assert loaded.conversations[GROUP].members_version == 7
    assert loaded.conversations[GROUP].border == road.state.conversations[GROUP].border == 9
    assert loaded.conversations[GROUP].max_seq == 10


def test_its_message_is_an_ordinary_one_to_readers() -> None:
    state = State(3, Progress())
    state.conversations[GROUP] = Conversation()
    record = Record(3, 1, NOW, msgspec.json.encode(changed("a", 1, joined=[1])))
    effect = apply(state, prepare(record))
    assert type(effect) is Accepted
    message = msgspec.json.decode(effect.message, type=Message)
    assert (message.msg_type, message.content, message.sender_id) == (0, '{"kind":"a"}', 1)
