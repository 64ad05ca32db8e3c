"""Facts on real servers: from a record of the log to a message on `im.v1.evt.>`, whatever is killed in between."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import pytest

import functions.facts
import functions.timeline
from functions.facts.relay import Counters, Relay
from functions.timeline.core import apply
from functions.timeline.core import prepare as prepare_record
from functions.timeline.outbox import fact
from functions.timeline.state import Accepted, Conversation, Progress, State
from migrations.__main__ import prepare
from schemas.facts import MessageSent
from schemas.records import SendRequested
from shared import subjects
from shared.adapters.log import open_log_reader
from shared.adapters.nats import NatsBus
from shared.bus import Inbox
from shared.ids import private_conversation
from shared.log import DEAD, EVENTS, REQUESTS, Record
from shared.patience import patiently
from shared.reader_progress import SqlProgress
from shared.resources import Resources
from shared.settings import Settings
from tests import servers
from tests.facts import take_facts
from tests.servers import NatsServer
from tests.support import until

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def own_nats() -> Iterator[NatsServer]:
    """One whose streams nobody else fills."""
    with servers.serve("nats-server", servers.nats) as server:
        yield server


@pytest.fixture(params=["laptop", "cluster"])
async def settings(
    request: pytest.FixtureRequest, own_nats: NatsServer, tmp_path: Path
) -> AsyncIterator[Settings]:
    """Prepared servers: JetStream and SQLite, or Kafka and MariaDB."""
    env = {
        "IM_NATS_URL": own_nats.url,
        "IM_REDIS_URL": request.getfixturevalue("redis_server").url,
        "IM_LOG_PARTITIONS": "4",
    }
    if request.param == "laptop":
        env |= {
            "IM_DB_URL": f"sqlite+aiosqlite:///{tmp_path}/im.sqlite",
            "IM_LOG_URL": "jetstream://",
        }
        loaded = Settings.load(env)
        assert await prepare(loaded) == []
        yield loaded
        return
    mariadb = request.getfixturevalue("mariadb_server")
    with servers.serve("Kafka", servers.kafka) as kafka:
        env |= {"IM_DB_URL": await mariadb.new_database(), "IM_LOG_URL": kafka.url}
        loaded = Settings.load(env)
        assert await prepare(loaded) == []
        yield loaded


@asynccontextmanager
async def running(settings: Settings, *names: str) -> AsyncIterator[tuple[Resources, Relay | None]]:
    """Functions at work in this process."""
    async with AsyncExitStack() as stack:
        bus = await NatsBus.open(settings.nats_url, "test")
        stack.push_async_callback(bus.close)
        resources = await stack.enter_async_context(Resources(settings, bus))
        relay = None
        if "timeline" in names:
            await stack.enter_async_context(functions.timeline.function.lifespan(resources))
        if "facts" in names:
            relay = await stack.enter_async_context(functions.facts.function.lifespan(resources))
        yield resources, relay


def sent(i: int) -> SendRequested:
    sender, receiver = i % 7 + 1, i % 5 + 11
    return SendRequested(
        conversation_id=private_conversation(sender, receiver),
        user_id=sender,
        at=0,
        trace=TRACE if i % 2 else "",
        client_msg_id=f"m{i}",
        msg_type=1,
        content=f'content "{i}"',
        receiver_id=receiver,
    )


async def send(resources: Resources, numbers: range) -> None:
    """Appends requests as `send` does."""
    writer = await resources.writer()
    records = [(r.conversation_id, msgspec.json.encode(r)) for r in map(sent, numbers)]
    await patiently(lambda: writer.append_all(REQUESTS, records), Counters())


def check(facts: list[MessageSent], count: int) -> None:
    """Each message once, with all it had, and each conversation in order without a gap."""
    numbers: dict[str, list[int]] = {}
    for one in facts:
        numbers.setdefault(one.data.conversation_id, []).append(one.data.seq)
        wanted = sent(int(one.data.client_msg_id[1:]))
        assert (one.data.content, one.trace) == (wanted.content, wanted.trace)
        assert one.id == f"message.sent.{one.data.msg_id}"
    assert len(facts) == count
    assert all(seqs == list(range(1, len(seqs) + 1)) for seqs in numbers.values())


async def test_every_message_becomes_a_fact_in_order(settings: Settings) -> None:
    async with running(settings, "timeline", "facts") as (resources, relay):
        await send(resources, range(700))
        assert relay is not None
        await until(lambda: relay.counters.published >= 700)
    async with running(settings, "facts") as (_, again):
        assert again is not None
        async with running(settings, "timeline") as (resources, _):
            await send(resources, range(700, 701))
            await until(lambda: again.counters.published)
        assert again.counters.published == 1, "it goes on where it was"
    check(await take_facts(settings.nats_url, 701), 701)


async def test_nothing_is_lost_when_nats_and_the_reader_are_killed(
    settings: Settings, own_nats: NatsServer
) -> None:
    async with running(settings, "timeline") as (resources, _):
        await send(resources, range(2_000))
        for published in (100, 200):  # a reader that is cut off in the middle, twice
            async with running(settings) as (cut, _):
                relay, task = await crashing_relay(cut)
                await until(lambda: relay.counters.published >= published)  # noqa: B023
                task.cancel()
                await asyncio.wait([task])
    async with running(settings, "timeline", "facts") as (resources, last):
        assert last is not None
        await until(lambda: last.counters.published > 100)
        own_nats.kill()
        own_nats.start()
        await send(resources, range(2_000, 2_001))
        check(await take_facts(settings.nats_url, 2_001), 2_001)


async def test_a_fact_that_is_none_goes_to_the_dead_letters(settings: Settings) -> None:
    async with running(settings, "timeline", "facts") as (resources, relay):
        assert relay is not None
        writer = await resources.writer()
        for value in (
            b"\xff",
            b'{"type":"a.>","id":"x"}',
            b'{"type":"a.b","id":"x\\r\\ny"}',
            b"[" * 9999,
        ):
            await writer.append(EVENTS, "p_1_2", value)
        await send(resources, range(1))
        await until(lambda: relay.counters.published == 1)
        await until(lambda: relay.counters.dead == 4)
        letters = await read_all(resources, DEAD, 4)
    assert {letter["topic"] for letter in letters} == {EVENTS}
    assert all(letter["reason"] for letter in letters)


def test_the_timelines_bytes_are_the_struct() -> None:
    request = sent(1)
    state = State(0, Progress())
    state.conversations[request.conversation_id] = Conversation()
    effect = apply(
        state, prepare_record(Record(0, 0, 1_800_000_000_000, msgspec.json.encode(request)))
    )
    assert isinstance(effect, Accepted)
    decoded = msgspec.json.decode(fact(effect), type=MessageSent)
    assert msgspec.json.encode(decoded) == fact(effect)
    assert decoded.trace == TRACE


async def crashing_relay(resources: Resources) -> tuple[Relay, "asyncio.Task[None]"]:
    """`facts` without an orderly end."""
    relay = Relay(
        SqlProgress(resources.engine(), "facts"),
        Inbox(resources.bus, subjects.FUNCTION_INBOX),
        await resources.writer(),
    )

    async def run() -> None:
        async with open_log_reader(
            resources.settings, resources.bus, EVENTS, "facts", relay
        ) as reader:
            await relay.run(reader)

    return relay, asyncio.create_task(run())


class _Start:
    async def assigned(self, partitions: frozenset[int]) -> dict[int, int]:
        return dict.fromkeys(partitions, 0)

    async def revoked(self, partitions: frozenset[int]) -> None:
        """Nothing is held."""


async def read_all(resources: Resources, topic: str, count: int) -> list[dict[str, object]]:
    """The first `count` records of a topic, decoded."""
    found: list[dict[str, object]] = []
    async with (
        asyncio.timeout(30),
        open_log_reader(resources.settings, resources.bus, topic, "tests", _Start()) as reader,
    ):
        while len(found) < count:
            found += [json.loads(record.value) for record in await reader.read(100)]
    return found
