"""Which commands are sampled, what their spans say, and that nothing is made or imported otherwise."""

import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy.dialects import sqlite

from functions.timeline import tracing
from functions.timeline.core import apply, prepare
from functions.timeline.pending import Pending
from functions.timeline.state import Conversation, Effect, Entry, Progress, State
from schemas.messages import MessageAck, SendMessage
from schemas.records import AnyRequest, SendRequested
from shared import telemetry
from shared.adapters.memory import MemoryBus
from shared.adapters.memory_log import MemoryLog
from shared.adapters.otel import OtelTracer
from shared.function import Context, Outcome, on
from shared.ids import EPOCH_MS
from shared.invoke import invoke
from shared.log import REQUESTS, Record
from shared.settings import Settings, SettingsError

ROOT = Path(__file__).parent.parent.parent
TRACE = "ab" * 16
CALLER = f"00-{TRACE}-{'cd' * 8}-01"


class Spans:
    """What an enabled tracer has sent away."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.tracer = OtelTracer("test", "", self._exporter)

    def ended(self) -> Sequence[ReadableSpan]:
        self.tracer.flush()
        return self._exporter.get_finished_spans()


@pytest.fixture
async def spans(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Spans]:
    """Tracing with a share of 0: only what a caller samples."""
    made = Spans()
    monkeypatch.setattr(telemetry, "_tracer", made.tracer)
    yield made
    await made.tracer.close()


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_without_an_endpoint_nothing_is_sampled() -> None:
    telemetry.set_up_tracing("test", Settings.load({"IM_TRACE_SAMPLE": "1"}))
    assert not telemetry.tracing()
    assert not telemetry.chosen(CALLER)
    assert not telemetry.sampled(CALLER)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("00", False), ("01", True), ("02", False), ("03", True), ("ff", True), ("", False)],
)
def test_the_lowest_flag_says_sampled(spans: Spans, flags: str, expected: bool) -> None:
    traceparent = f"00-{TRACE}-{'cd' * 8}-{flags}"
    assert telemetry.sampled(traceparent) is expected
    assert telemetry.chosen(traceparent) is expected


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_edge_draws_lots(spans: Spans, monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    monkeypatch.setattr(telemetry, "_share", share)
    assert {telemetry.chosen("") for _ in range(100)} == {share == 1.0}


def test_the_share_is_a_setting() -> None:
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
    assert Settings.load({}).trace_sample == 0
    assert Settings.load(endpoint).trace_sample == 0.01
    assert Settings.load(endpoint | {"IM_TRACE_SAMPLE": "0.5"}).trace_sample == 0.5
    for wrong in ("2", "-0.1", "nan", "some"):
        with pytest.raises(SettingsError, match="IM_TRACE_SAMPLE"):
            Settings.load({"IM_TRACE_SAMPLE": wrong})


def test_the_first_span_has_the_trace_id_that_it_is_given(spans: Spans) -> None:
    first = telemetry.start("first", "server", f"00-{TRACE}-{0:016x}-01", {})
    second = telemetry.start("second", "consumer", first.traceparent, {"im.user_id": 7})
    second.end({"im.code": "ok"})
    first.end(error="internal")
    later, earlier = spans.ended()
    assert earlier.context is not None
    assert later.parent is not None
    assert first.traceparent == f"00-{TRACE}-{earlier.context.span_id:016x}-01"
    assert earlier.parent is None
    assert later.parent.span_id == earlier.context.span_id
    assert attributes(later) == {"im.user_id": 7, "im.code": "ok"}
    assert attributes(earlier) == {"error.type": "internal"}
    assert (later.status.is_ok, earlier.status.is_ok) == (True, False)


@pytest.mark.parametrize(
    "parent", ["", "x" * 54 + "1", "00-" + "0" * 32 + "-" + "1" * 16 + "-01", "é" * 60]
)
def test_rubbish_for_a_parent_begins_a_trace_of_its_own(spans: Spans, parent: str) -> None:
    telemetry.start("process", "consumer", parent, {}, links=[parent]).end()
    [span] = spans.ended()
    assert span.parent is None
    assert span.links == ()


def test_a_failure_tells_its_type_and_not_its_text(spans: Spans) -> None:
    with (
        pytest.raises(ValueError, match="zebra"),
        telemetry.start("send", "producer", CALLER, {}),
    ):
        raise ValueError("zebra-content")
    [span] = spans.ended()
    assert attributes(span) == {"error.type": "ValueError"}
    assert "zebra" not in span.to_json()


@pytest.mark.parametrize("sampled", [True, False])
async def test_the_record_names_the_span_of_its_append(spans: Spans, sampled: bool) -> None:
    trace = CALLER if sampled else CALLER[:-1] + "0"
    handler = on("message.send", requesting)
    log = MemoryLog(2)
    body = msgspec.json.encode(SendMessage("1", "zebra-content", receiver_id=2))
    await invoke(handler, body, Context(1, None, 0, traceparent=trace), MemoryBus(), log)
    [record] = log.records(REQUESTS)
    written = msgspec.json.decode(record.value, type=SendRequested)
    if not sampled:
        assert (written.trace, spans.ended()) == (trace, ())
        return
    [span] = spans.ended()
    assert span.context is not None
    assert written.trace == f"00-{TRACE}-{span.context.span_id:016x}-01"
    assert attributes(span)["messaging.operation.type"] == "send"
    assert "zebra" not in span.to_json()


async def requesting(cmd: SendMessage, ctx: Context[None]) -> Outcome[MessageAck]:
    return Outcome(None, requests=(request(cmd.client_msg_id, ctx.traceparent, cmd.content),))


def request(client_msg_id: str, trace: str, content: str = "zebra-content") -> SendRequested:
    return SendRequested(
        conversation_id="p_1_2",
        user_id=1,
        at=0,
        trace=trace,
        client_msg_id=client_msg_id,
        msg_type=1,
        content=content,
        receiver_id=2,
    )


def applied(requests: Sequence[AnyRequest]) -> tuple[list[Entry], list[Effect], State]:
    state = State(0, Progress())
    state.conversations["p_1_2"] = Conversation()
    entries = [
        prepare(Record(0, i, EPOCH_MS + i, msgspec.json.encode(r))) for i, r in enumerate(requests)
    ]
    return entries, [apply(state, entry) for entry in entries], state


def test_each_sampled_message_of_a_batch_has_its_whole_trace(spans: Spans) -> None:
    callers = [f"00-{i:032x}-{i:016x}-01" for i in (1, 2, 3)]
    requests = [request(f"m{i}", caller) for i, caller in enumerate(callers)]
    unsampled = request("m9", CALLER[:-1] + "0")
    again, other = request("m0", CALLER), request("m0", CALLER, "another")
    entries, effects, state = applied([*requests, unsampled, again, other])
    begun = tracing.begin(entries)
    pending = Pending(Progress())
    pending.add(effects, state.progress)
    pending.traced += tracing.finish(begun, effects)
    assert begun == {}
    with tracing.inserting([pending], sqlite.dialect()):
        pass
    processed, inserts = spans.ended()[:5], spans.ended()[5:]
    assert [attributes(s).get("im.repeated") for s in processed] == [0, 0, 0, 1, None]
    assert attributes(processed[4])["error.type"] == "Refused"
    by_trace = {s.context.trace_id: s for s in inserts if s.context is not None}
    assert sorted(by_trace) == [1, 2, 3]
    assert {len(s.links) for s in by_trace.values()} == {1, 2}
    for process in processed[:3]:
        assert process.context is not None
        insert = by_trace[process.context.trace_id]
        assert insert.parent is not None
        assert insert.parent.span_id == process.context.span_id
        assert attributes(insert)["im.msg_id"] == attributes(process)["im.msg_id"]
        assert attributes(insert)["db.operation.batch.size"] == 4
        assert all(link.context.trace_id != process.context.trace_id for link in insert.links)
    assert "zebra" not in "".join(span.to_json() for span in spans.ended())


def test_a_transaction_that_fails_says_so(spans: Spans) -> None:
    entries, effects, state = applied([request("m", CALLER)])
    begun = tracing.begin(entries)
    pending = Pending(Progress())
    pending.add(effects, state.progress)
    pending.traced += tracing.finish(begun, effects)
    with pytest.raises(OSError, match="away"), tracing.inserting([pending], sqlite.dialect()):
        raise OSError("away")
    assert attributes(spans.ended()[-1])["error.type"] == "OSError"


def test_nothing_of_opentelemetry_is_imported_without_an_endpoint() -> None:
    """All modules of all processes, and a command that its caller samples through edge and host."""
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_ENDPOINT],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "set()\nset()\n")


_WITHOUT_ENDPOINT = f"""
import asyncio, sys

def opentelemetry():
    return {{name for name in sys.modules if name.startswith("opentelemetry")}}

import edge.workers
print(opentelemetry())
import redis.asyncio  # which imports parts of it by itself
of_redis = opentelemetry()
import migrations.__main__
from edge.road import Road, identity
from edge.stats import Stats
from functions.__main__ import load, registry
from schemas.commands import BY_TYPE
from shared.adapters.memory import MemoryBus
from shared.adapters.memory_log import MemoryLog
from shared.bus import Inbox
from shared.hosts.nats import Host
from shared.settings import Settings
from shared.telemetry import close_tracing, set_up_tracing
from functions.send.handler import Deps

class Gate:
    async def private(self, sender, receiver):
        pass

async def main():
    set_up_tracing("test", Settings.load())
    functions = [load(name) for name in registry()]
    bus, log = MemoryBus(), MemoryLog(1)
    host = Host(bus, writer=log)
    await host.serve(next(f for f in functions if f.name == "send"), Deps(Gate(), None))
    inbox = Inbox(bus)
    command, data = BY_TYPE["message.send"], b'{{"client_msg_id":"1","receiver_id":2,"content":"x"}}'
    Road(inbox, Stats()).ask(command, 1, data, identity(None), lambda _: None, "", "{CALLER}")
    while not log.records("im.requests"):
        await asyncio.sleep(0)
    inbox.close()
    await close_tracing()

asyncio.run(main())
print(opentelemetry() - of_redis)
"""


def test_a_log_line_names_its_trace() -> None:
    formatter = telemetry.JsonFormatter("send")
    record = logging.LogRecord("shared.x", logging.WARNING, "", 1, "%s lost", ("it",), None)
    assert "trace_id" not in json.loads(formatter.format(record))
    record.__dict__ |= telemetry.about(CALLER)
    entry = json.loads(formatter.format(record))
    assert (entry["message"], entry["service"], entry["trace_id"]) == ("it lost", "send", TRACE)
