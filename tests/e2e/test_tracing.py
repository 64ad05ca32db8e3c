"""One message's spans from the socket to its row, at a real OTLP receiver, on both stacks."""

import asyncio
import urllib.error
import urllib.request
from collections.abc import AsyncIterator

import msgspec
import pytest

from clients.python.natterjack import Client
from shared.log import REQUESTS
from tests.e2e.conftest import Start
from tests.otlp import Received, Receiver, receiving
from tests.support import until
from tests.system import PASSWORD, System

CONTENT = "zebra-content-4711"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as started:
        yield started


@pytest.fixture
async def traced(both_stacks: Start, receiver: Receiver) -> AsyncIterator[System]:
    """Every command is sampled."""
    tracing = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "IM_TRACE_SAMPLE": "1",
    }
    async with both_stacks(**tracing) as system:
        yield system


def only(spans: list[Received]) -> Received:
    assert len(spans) == 1, spans
    return spans[0]


async def test_a_message_is_followed_from_the_socket_to_its_row(
    traced: System, receiver: Receiver
) -> None:
    async with await traced.user("alice") as alice, await traced.user("bob") as bob:
        ack = await alice.send(peer=bob.user_id, text=CONTENT)
        await until(lambda: bool(receiver.find("INSERT", im_msg_id=ack.msg_id)), 30)
        insert = only(receiver.find("INSERT", im_msg_id=ack.msg_id))
        # The last one may well be the first to arrive.
        await until(lambda: len(trace_of(receiver, insert)) == 5, 30)
    insert, process, send, host, edge = chain(receiver, insert)
    month = insert.name.removeprefix("INSERT message_")
    assert len(month) == 6
    assert [(s.service, s.name, s.kind) for s in (edge, host, send, process, insert)] == [
        ("edge", "message.send", "server"),
        ("functions", "process message.send", "consumer"),
        ("functions", f"send {REQUESTS}", "producer"),
        ("timeline", f"process {REQUESTS}", "consumer"),
        ("timeline", f"INSERT message_{month}", "client"),
    ]
    assert edge.parent == ""
    assert process.attributes["im.msg_id"] == ack.msg_id
    assert process.attributes["im.conversation_id"] == ack.conversation_id
    on_kafka = "kafka" in traced.servers
    log, database = ("kafka", "mariadb") if on_kafka else ("nats", "sqlite")
    assert send.attributes["messaging.system"] == process.attributes["messaging.system"] == log
    assert insert.attributes["db.system.name"] == database
    assert insert.attributes["db.collection.name"] == f"message_{month}"
    assert edge.start <= host.start <= send.start <= process.start <= insert.start
    assert not any(span.failed for span in (edge, host, send, process, insert))
    assert CONTENT.encode() not in receiver.raw
    assert PASSWORD.encode() not in receiver.raw


async def test_messages_of_one_transaction_are_linked(traced: System, receiver: Receiver) -> None:
    async with await traced.user("alice") as alice, await traced.user("bob") as bob:
        acks = await asyncio.gather(
            *(alice.send(peer=bob.user_id, text=f"{i}") for i in range(100))
        )
        await until(lambda: len(receiver.find("INSERT")) == len(acks), 30)
        await until(lambda: len(receiver.find(f"process {REQUESTS}")) == len(acks), 30)
    inserts = receiver.find("INSERT")
    assert {span.attributes["im.msg_id"] for span in inserts} == {ack.msg_id for ack in acks}
    assert len({span.trace for span in inserts}) == len(acks)
    linked = [span for span in inserts if span.links]
    assert linked
    processes = {(s.trace, s.id) for s in receiver.find(f"process {REQUESTS}")}
    assert all(link in processes and link[0] != s.trace for s in linked for link in s.links)


async def test_http_commands_are_steps_of_their_callers_trace(
    traced: System, receiver: Receiver
) -> None:
    caller = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
    body = msgspec.json.encode({"username": "nobody", "password": "wrong-password"})
    request = urllib.request.Request(  # noqa: S310 - our own
        f"{traced.url}/api/v1/auth/login", body, {"traceparent": caller}
    )
    with pytest.raises(urllib.error.HTTPError):
        await asyncio.to_thread(urllib.request.urlopen, request, timeout=10)
    await until(lambda: len([s for s in receiver.spans if s.trace == "ab" * 16]) == 2, 30)
    edge = only([s for s in receiver.find("auth.login") if s.trace == "ab" * 16])
    host = only([s for s in receiver.find("process auth.login") if s.trace == "ab" * 16])
    assert (edge.parent, host.parent) == ("cd" * 8, edge.id)
    assert edge.attributes["im.code"] == host.attributes["im.code"] == "unauthenticated"
    assert not edge.failed
    assert not host.failed
    assert b"wrong-password" not in receiver.raw


async def test_the_last_spans_arrive_though_the_processes_end(
    traced: System, receiver: Receiver
) -> None:
    async with await traced.user("alice") as alice, await traced.user("bob") as bob:
        ack = await last_message(alice, bob)
    assert set((await traced.stop()).values()) == {0}
    insert = only(receiver.find("INSERT", im_msg_id=ack))
    assert len(trace_of(receiver, insert)) == 5


async def last_message(sender: Client, receiver: Client) -> str:
    return (await sender.send(peer=receiver.user_id, text=CONTENT)).msg_id


def trace_of(receiver: Receiver, span: Received) -> list[Received]:
    return [other for other in receiver.spans if other.trace == span.trace]


def chain(receiver: Receiver, span: Received) -> list[Received]:
    """A span, its parent, and so on to the first."""
    by_id = {other.id: other for other in trace_of(receiver, span)}
    spans = [span]
    while spans[-1].parent:
        spans.append(by_id[spans[-1].parent])
    return spans
