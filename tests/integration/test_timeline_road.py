"""The timeline on real servers: JetStream, Redis, SQLite."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from functions.timeline.hot import RedisHot
from functions.timeline.shell import At, Timeline
from functions.timeline.store import SqlStore
from migrations.schema import upgrade
from schemas.messages import MessageAck
from schemas.records import SendRequested
from shared import subjects, tables
from shared.adapters.log_jetstream import JetStreamWriter, ensure_stream
from shared.adapters.log_jetstream_reader import JetStreamReader
from shared.adapters.nats import NatsBus
from shared.adapters.redis import open_redis
from shared.adapters.sql import open_engine
from shared.bus import Inbox, header
from shared.hot import HotWriter, key_of
from shared.ids import month_of, private_conversation, snowflake_ms
from shared.log import DEAD, EVENTS, REQUESTS
from tests.servers import NatsServer, RedisServer
from tests.support import until

PARTITIONS = 8
_numbers = count(1)


class Road:
    """The servers' clients, and what a function and an edge would do on the way to the timeline and back."""

    def __init__(self, bus: NatsBus, redis: Redis, engine: AsyncEngine) -> None:
        self.bus = bus
        self.redis = redis
        self.engine = engine
        self.topic_suffix = next(_numbers)
        self.writer = JetStreamWriter(bus, PARTITIONS)
        self.inbox = Inbox(bus)
        self.store = SqlStore(engine)
        self.hot = RedisHot(HotWriter(redis))

    @asynccontextmanager
    async def timeline(
        self, at: At = lambda _: None, *, crashes: bool = False
    ) -> AsyncIterator["asyncio.Task[None]"]:
        """An owner at work, which leaves gracefully at the end, or `crashes` there if it has not before."""
        timeline = Timeline(self.store, self.hot, self.bus, self.writer, at=at)
        reader = JetStreamReader(self.bus, REQUESTS, "timeline", PARTITIONS, timeline)
        task = asyncio.create_task(timeline.run(reader))
        yield task
        if not crashes:
            await timeline.stop()
        task.cancel()
        await asyncio.wait([task])

    def ask(self, request: SendRequested) -> "asyncio.Future[tuple[bytes, bytes]]":
        """Appends a request as `send` does; the future gets the answer of the timeline."""
        answer: asyncio.Future[tuple[bytes, bytes]] = asyncio.get_running_loop().create_future()

        def settle(payload: bytes | None, headers: bytes) -> None:
            if not answer.done():
                answer.set_result((b"" if payload is None else payload, headers))

        catcher = _Catcher()
        self.inbox._bus, bus = catcher, self.inbox._bus  # type: ignore[assignment]
        try:
            self.inbox.ask("", b"", 60, settle)
        finally:
            self.inbox._bus = bus
        request.reply = catcher.reply
        self.writer.append(REQUESTS, request.conversation_id, msgspec.json.encode(request))
        return answer

    async def rows(self) -> Sequence[Any]:
        """All stored messages by conversation and seq."""
        month = month_of(snowflake_ms(await self._newest()))
        table = tables.message_table(month)
        async with self.engine.connect() as connection:
            return (
                await connection.execute(
                    select(table).order_by(table.c.conversation_id, table.c.seq)
                )
            ).all()

    async def _newest(self) -> int:
        c = tables.message_key.c
        async with self.engine.connect() as connection:
            return int(
                (
                    await connection.execute(select(c.msg_id).order_by(c.msg_id.desc()).limit(1))
                ).scalar_one()
            )


class _Catcher:
    """Stands in for the bus to learn the reply subject that the inbox makes."""

    reply = ""

    def send(
        self, _subject: str, _payload: bytes, reply: str, _headers: bytes, **_options: bool
    ) -> None:
        self.reply = reply


@pytest.fixture
async def road(
    nats_server: NatsServer, redis_server: RedisServer, tmp_path: Path
) -> AsyncIterator[Road]:
    bus = await NatsBus.open(nats_server.url, "test")
    redis = open_redis(redis_server.url)
    await redis.flushall()
    engine = open_engine(f"sqlite+aiosqlite:///{tmp_path}/im.sqlite")
    await upgrade(engine)
    for topic in (REQUESTS, EVENTS, DEAD):
        await ensure_stream(bus, topic, PARTITIONS)
        await bus.request(f"$JS.API.STREAM.PURGE.{topic.replace('.', '_').upper()}", b"")
    road = Road(bus, redis, engine)
    yield road
    road.inbox.close()
    road.writer.close()
    await engine.dispose()
    await redis.aclose()
    await bus.close()


def message(sender: int, receiver: int, name: str, content: str = "hello") -> SendRequested:
    return SendRequested(
        conversation_id=private_conversation(sender, receiver),
        user_id=sender,
        at=0,
        conn="c1",
        client_msg_id=name,
        msg_type=1,
        content=content,
        receiver_id=receiver,
    )


def _between(pair: list[int], name: str, content: str) -> SendRequested:
    return message(pair[0], pair[1], name, content)


async def acked(road: Road, request: SendRequested) -> MessageAck:
    payload, headers = await road.ask(request)
    assert not headers
    return msgspec.json.decode(payload, type=MessageAck)


async def test_a_message_is_numbered_delivered_cached_stored_and_acked(road: Road) -> None:
    pushed: list[tuple[str, bytes, str]] = []
    road.bus.listen(
        f"{subjects.USER_PREFIX}*",
        lambda subject, _, payload, headers: pushed.append(
            (subject, payload, header(headers, b"Im-Conn: "))
        ),
    )
    async with road.timeline():
        first = await acked(road, message(1, 2, "a"))
        second = await acked(road, message(2, 1, "b", "hi"))
        assert (first.seq, second.seq, first.client_msg_id) == (1, 2, "a")
        assert snowflake_ms(int(first.msg_id)) == first.timestamp
        await until(
            lambda: len([p for _, p, _ in pushed if b'"head"' in p and b'"seq":2' in p]) == 2
        )
    frames = [(subject, json.loads(payload), conn) for subject, payload, conn in pushed]
    messages = [(s, f["data"]["seq"], c) for s, f, c in frames if f["type"] == "message"]
    assert sorted(messages) == [(f"im.v1.user.{u}", seq, "c1") for u in (1, 2) for seq in (1, 2)]
    # If the two were stored far apart, there was one of the first, too.
    heads = [(s, f["data"]) for s, f, _ in frames if f["type"] == "head" and f["data"]["seq"] == 2]
    assert heads == [
        (f"im.v1.user.{u}", {"conversation_id": "p_1_2", "seq": 2, "rev": 0}) for u in (1, 2)
    ]
    hot: Any = await road.redis.zrange(key_of("p_1_2"), 1, -1)
    assert [json.loads(m) for m in hot] == [f["data"] for s, f, _ in frames if s.endswith(".2")][:2]
    assert [(r.msg_id, r.seq, r.content) for r in await road.rows()] == [
        (first.msg_id, 1, "hello"), (second.msg_id, 2, "hi")
    ]  # fmt: skip


@pytest.mark.parametrize("crashes", [True, False])
async def test_heads_survive_their_owner_or_are_sent_by_him(
    road: Road, monkeypatch: pytest.MonkeyPatch, *, crashes: bool
) -> None:
    """Whoever missed the push, and has been told by no head yet, would wait for the next message."""
    heads: list[dict[str, Any]] = []

    def note(_subject: str, _reply: str, payload: bytes, _headers: bytes) -> None:
        frame = json.loads(payload)
        if frame["type"] == "head":
            heads.append(frame["data"])

    monkeypatch.setattr("functions.timeline.heads.QUIET_S", 1000)
    committed = asyncio.Event()

    def at(point: str) -> None:
        if point == "committed":
            committed.set()

    async with road.timeline(at, crashes=crashes):
        ack = await acked(road, message(1, 2, "a"))
        await committed.wait()
        road.bus.listen(f"{subjects.USER_PREFIX}2", note)
    if not crashes:
        await until(lambda: heads)
    async with road.timeline():
        await until(lambda: heads)
    assert heads[0] == {"conversation_id": "p_1_2", "seq": ack.seq, "rev": 0}


async def test_a_repeat_gets_the_first_answer_and_another_content_is_a_conflict(road: Road) -> None:
    async with road.timeline():
        first = await acked(road, message(1, 2, "a"))
        assert await acked(road, message(1, 2, "a")) == first
        payload, headers = await road.ask(message(1, 2, "a", "other"))
        assert header(headers, b"Nats-Service-Error-Code: ") == "409"
        assert json.loads(payload)["code"] == "conflict"
    await road.redis.flushall()
    async with road.timeline():
        assert await acked(road, message(1, 2, "a")) == first
        assert (await acked(road, message(1, 2, "b"))).seq == 2
    assert len(await road.rows()) == 2


async def test_poison_goes_to_the_dead_letters_and_stops_nobody(road: Road) -> None:
    async with road.timeline():
        await road.writer.append(REQUESTS, "p_1_2", b"\xff not JSON")
        await road.writer.append(
            REQUESTS, "p_1_2", b'{"type":"message.send","conversation_id":"p_1_2"}'
        )
        assert (await acked(road, message(1, 2, "a"))).seq == 1
    stream = json.loads((await road.bus.request("$JS.API.STREAM.INFO.IM_DEAD", b"")).data)
    assert stream["state"]["messages"] == 2


@pytest.mark.parametrize("seed", range(3))
async def test_5000_messages_while_owners_crash_and_redis_is_emptied(road: Road, seed: int) -> None:
    chance = random.Random(seed)
    requests = [
        _between(chance.sample(range(1, 12), 2), f"m{i}", f"content {i}") for i in range(5_000)
    ]
    repeats = [chance.choice(requests) for _ in range(200)]
    answers = [road.ask(msgspec.structs.replace(request)) for request in requests + repeats]

    everything: asyncio.Future[Any] = asyncio.gather(*answers)
    crashes = 0
    while not everything.done():
        countdown = count(chance.randrange(2, 9) if crashes < 6 else -1, -1)

        def at(point: str, countdown: Any = countdown) -> None:
            if next(countdown) == 0:
                raise RuntimeError(point)

        async with road.timeline(at, crashes=True) as task:
            either: set[asyncio.Future[Any]] = {task, everything}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        crashes += 1
        await road.redis.flushall()
    async with road.timeline():  # the last one may have crashed before its last COMMIT
        last = await acked(road, message(98, 99, "last"))
    assert crashes >= 2

    rows = [row for row in await road.rows() if row.msg_id != last.msg_id]
    stored = {
        (r.conversation_id, r.sender_id, r.client_msg_id): (r.msg_id, r.seq, r.content)
        for r in rows
    }
    assert len(rows) == len(stored) == 5_000
    for request, answer in zip(requests + repeats, answers, strict=True):
        ack = msgspec.json.decode(answer.result()[0], type=MessageAck)
        key = (request.conversation_id, request.user_id, request.client_msg_id)
        assert stored[key] == (ack.msg_id, ack.seq, request.content)
    numbers: dict[str, list[int]] = {}
    for row in rows:
        numbers.setdefault(row.conversation_id, []).append(row.seq)
    assert all(seqs == list(range(1, len(seqs) + 1)) for seqs in numbers.values())


async def test_goes_on_without_redis_and_removes_what_it_missed(
    road: Road, redis_server: RedisServer
) -> None:
    async with road.timeline():
        await acked(road, message(1, 2, "a"))
        redis_server.stop()
        try:
            assert (await acked(road, message(1, 2, "b"))).seq == 2
        finally:
            redis_server.start()
        road.hot._resting_until = 0.0
        assert (await acked(road, message(1, 2, "c"))).seq == 3
    held: Any = await road.redis.zrange(key_of("p_1_2"), 1, -1, withscores=True)
    assert [int(seq) for _, seq in held] == [3]
    assert [r.seq for r in await road.rows()] == [1, 2, 3]


async def test_goes_on_after_nats_was_killed(road: Road, nats_server: NatsServer) -> None:
    async with road.timeline():
        await acked(road, message(1, 2, "a"))
        nats_server.kill()
        await until(lambda: not road.bus.connected)
        nats_server.start()
        await until(lambda: road.bus.connected)
        assert (await acked(road, message(1, 2, "b"))).seq == 2
    assert [r.seq for r in await road.rows()] == [1, 2]
