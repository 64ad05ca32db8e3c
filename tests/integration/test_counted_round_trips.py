"""Round trips of the road on real servers: what waits at the same time shares them, whatever the machine is doing."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis.asyncio.connection import AbstractConnection
from sqlalchemy import event, insert

import functions.history
import functions.send
import functions.timeline
from migrations.__main__ import prepare
from shared import subjects, tables
from shared.adapters.nats import NatsBus
from shared.bus import Inbox
from shared.hosts.nats import Host
from shared.resources import Resources
from shared.settings import Settings
from tests import servers
from tests.servers import RedisServer

MESSAGES = 400


class Road:
    """send, timeline and history in this process, and what they ask of the servers."""

    def __init__(self, bus: NatsBus, inbox: Inbox) -> None:
        self.bus = bus
        self.inbox = inbox
        self.counts: Counter[str] = Counter()

    async def ask(self, command: str, data: Mapping[str, object]) -> dict[str, object]:
        body, headers = await self.inbox.request(
            subjects.command(1, command), msgspec.json.encode(data), 30
        )
        assert not headers, body
        answer: dict[str, object] = msgspec.json.decode(body)
        return answer


@pytest.fixture
async def road(
    redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Road]:
    with servers.serve("nats-server", servers.nats) as nats:
        settings = Settings.load(
            {
                "IM_NATS_URL": nats.url,
                "IM_REDIS_URL": redis_server.url,
                "IM_DB_URL": f"sqlite+aiosqlite:///{tmp_path / 'im.db'}",
                "IM_LOG_URL": "jetstream://",
                "IM_LOG_PARTITIONS": "8",
                "IM_RATE_LIMITS": "off",
                "IM_STRANGERS": "allow",
            }
        )
        assert await prepare(settings) == []
        async with AsyncExitStack() as stack:
            bus = await NatsBus.open(nats.url, "test")
            stack.push_async_callback(bus.close)
            resources = await stack.enter_async_context(Resources(settings, bus))
            await resources.redis().flushall()
            async with resources.engine().begin() as connection:
                for name in ("a", "b"):
                    row = dict.fromkeys(
                        ("username", "username_key", "nickname", "nickname_key"), name
                    )
                    await connection.execute(
                        insert(tables.user).values(password_hash="", created_ms=0, **row)
                    )
            host = Host(bus, writer=await resources.writer())
            for function in (
                functions.send.function,
                functions.history.function,
                functions.timeline.function,
            ):
                deps = await stack.enter_async_context(function.lifespan(resources))
                await host.serve(function, deps)
            inbox = Inbox(bus)
            stack.callback(inbox.close)
            await bus.flush()
            road = Road(bus, inbox)
            await road.ask(
                "message.send", {"receiver_id": 2, "client_msg_id": "first", "content": "x"}
            )
            count(road, resources, monkeypatch)
            yield road
            await host.drain(5)


def count(road: Road, resources: Resources, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("functions.timeline.heads.QUIET_S", 1000)  # they go by time

    def on_sql(_connection: object, _cursor: object, sql: str, *_: object) -> None:
        road.counts["sql"] += 1
        road.counts[f"sql {sql.split(maxsplit=1)[0]}"] += 1

    event.listen(resources.engine().sync_engine, "before_cursor_execute", on_sql)
    send_packed = AbstractConnection.send_packed_command

    async def on_redis(*args: object, **kwargs: object) -> None:
        road.counts["redis"] += 1
        await send_packed(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(AbstractConnection, "send_packed_command", on_redis)
    send = NatsBus.send

    def on_nats(self: NatsBus, subject: str, *args: Any, **options: Any) -> None:
        road.counts[f"nats {'.'.join(subject.split('.')[:3])}"] += 1
        send(self, subject, *args, **options)

    monkeypatch.setattr(NatsBus, "send", on_nats)


async def test_messages_that_wait_together_share_their_round_trips(road: Road) -> None:
    data = [{"receiver_id": 2, "client_msg_id": f"m-{i}", "content": "x"} for i in range(MESSAGES)]
    await asyncio.gather(*(road.ask("message.send", d) for d in data))
    counts = dict(road.counts)
    assert counts["nats im.v1.cmd"] == MESSAGES
    assert counts["nats im.v1.user"] == 2 * MESSAGES, "one push a side, and no head in between"
    assert counts["nats im.log.requests"] == MESSAGES
    assert counts["redis"] <= MESSAGES / 8, counts
    assert counts["sql"] <= MESSAGES / 4, counts  # COMMITs go by time


async def test_a_growing_uuid_is_not_looked_up(road: Road) -> None:
    for i in range(3):
        data = {
            "receiver_id": 2,
            "client_msg_id": f"01937c5e-8f3a-7cc1-9d0e-{i:012d}",
            "content": "x",
        }
        await road.ask("message.send", data)
    assert road.counts["sql SELECT"] == 0, road.counts


async def test_reads_that_wait_together_share_their_round_trips(road: Road) -> None:
    ask = {"conversation_id": "p_1_2"}
    await road.ask("message.history", ask)
    road.counts.clear()
    await asyncio.gather(*(road.ask("message.history", ask) for _ in range(MESSAGES)))
    assert road.counts["redis"] <= MESSAGES / 8, road.counts
    assert road.counts["sql SELECT"] <= MESSAGES / 8, road.counts
