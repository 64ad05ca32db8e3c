"""`./task bench -- bridge`: one command on NATS directly and through a bridge, and how long a start from zero takes.

The command is `user.get` of a user who is there, so that nearly all of the time is the road. The POST goes straight
to the function: what Knative's gateway, activator and queue-proxy add is not in the figures.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec
import psutil
from sqlalchemy import insert

from laptop.ports import free_ports
from laptop.process import LaptopError, Process
from shared import subjects, tables
from shared.adapters.nats import NatsBus
from shared.adapters.sql import open_engine
from shared.bus import ERROR_CODE, Inbox, header
from shared.hosts.check import missing
from tests import servers
from tests.bench.histogram import Histogram
from tests.bench.stack import ROOT, SECRET, user_row
from tests.knative import Activator

IN_FLIGHT = (1, 16, 64)
STARTS = 5
NAME = "profile"
COMMAND = subjects.command(1, "user.get")
TIMEOUT_S = 20.0


class Row(msgspec.Struct):
    """One part of the run. cpu_us: of Python, for one command, by process."""

    road: str
    in_flight: int
    commands: int
    per_second: float
    latency_ms: dict[str, float]
    cpu_us: dict[str, float]
    failed: int


class BridgeReport(msgspec.Struct):
    """All of it. start_ms: from a command to its answer while no process runs, sorted."""

    rows: list[Row]
    start_ms: list[float]


async def measure(seconds: float) -> BridgeReport:
    """Runs everything. Raises: LaptopError."""
    with tempfile.TemporaryDirectory(prefix="natterjack-bench-") as name:
        folder = Path(name)
        with (
            servers.serve("nats-server", servers.nats) as nats,
            servers.serve("redis-server", servers.redis) as redis,
        ):
            env = {k: v for k, v in os.environ.items() if not k.startswith("IM_")} | {
                "PYTHONPATH": str(ROOT),
                "IM_NATS_URL": nats.url,
                "IM_REDIS_URL": redis.url,
                "IM_DB_URL": f"sqlite+aiosqlite:///{folder / 'im.db'}",
                "IM_LOG_URL": "jetstream://",
                "IM_LOG_PARTITIONS": "8",
                "IM_JWT_SECRET": SECRET,
                "IM_STRANGERS": "allow",
            }
            await _prepare(folder, env)
            with running(folder, env, "functions", NAME) as function:
                async with asking(nats.url) as inbox:
                    parts = {NAME: function}
                    rows = [await _load("direct", inbox, n, seconds, parts) for n in IN_FLIGHT]
            port = str(free_ports(1)[0])
            sink = {"K_SINK": f"http://127.0.0.1:{port}"}
            with (
                running(folder, env | {"PORT": port}, "functions", NAME) as function,
                running(folder, env | sink, "shared.hosts.bridge", NAME) as bridge,
            ):
                async with asking(nats.url) as inbox:
                    parts = {NAME: function, "bridge": bridge}
                    rows += [await _load("bridge", inbox, n, seconds, parts) for n in IN_FLIGHT]
            return BridgeReport(rows, await _starts(folder, env, nats.url))


def table(report: BridgeReport) -> str:
    """For people."""
    lines = [
        "road    in flight  commands/s   p50 ms   p99 ms  max ms  CPU µs a command",
        *(
            f"{r.road:<8}{r.in_flight:>9}{r.per_second:>12,.0f}{r.latency_ms['p50']:>9.2f}"
            f"{r.latency_ms['p99']:>9.2f}{r.latency_ms['max']:>8.1f}  "
            + ", ".join(f"{name} {cost:.0f}" for name, cost in r.cpu_us.items())
            + (f"  FAILED {r.failed}" if r.failed else "")
            for r in report.rows
        ),
        "from zero, ms: " + ", ".join(f"{ms:.0f}" for ms in report.start_ms),
    ]
    return "\n".join(lines)


@contextmanager
def running(folder: Path, env: dict[str, str], module: str, name: str) -> Iterator[Process]:
    """`python -m MODULE NAME` until the block ends."""
    command = [sys.executable, "-m", module, name]
    log = folder / f"{module}-{name}.log"
    process = Process(f"{module} {name}", command, folder=ROOT, log=log, env=env)
    process.launch()
    try:
        yield process
    finally:
        process.stop()


@asynccontextmanager
async def asking(url: str) -> AsyncIterator[Inbox]:
    """An inbox, as soon as the function answers through it. Raises: LaptopError."""
    bus = await NatsBus.open(url, "bench")
    inbox = Inbox(bus)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            while await missing(url, [NAME], 1) or not await _ask(inbox):
                await asyncio.sleep(0.05)  # a bridge may be there before its function
        yield inbox
    except TimeoutError:
        raise LaptopError(f"{NAME} does not answer") from None
    finally:
        inbox.close()
        await bus.close()


async def _prepare(folder: Path, env: dict[str, str]) -> None:
    migrations = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "migrations", cwd=ROOT, env=env
    )
    if await migrations.wait():
        raise LaptopError("migrations failed")
    engine = open_engine(env["IM_DB_URL"], pool_size=1)
    async with engine.begin() as connection:
        await connection.execute(insert(tables.user), [user_row(1)])
    await engine.dispose()


async def _ask(inbox: Inbox) -> bool:
    _, block = await inbox.request(COMMAND, b'{"id":1}', TIMEOUT_S)
    return not header(block, ERROR_CODE)


async def _load(
    road: str, inbox: Inbox, in_flight: int, seconds: float, parts: dict[str, Process]
) -> Row:
    """A closed loop of so many askers."""
    latencies = Histogram()
    failed = 0
    processes = {name: psutil.Process(part.pid) for name, part in parts.items()}
    end = time.perf_counter() + 1  # a warm-up

    async def asker() -> None:
        nonlocal failed
        while (started := time.perf_counter()) < end:
            failed += not await _ask(inbox)
            latencies.record(time.perf_counter() - started)

    await asyncio.gather(*(asker() for _ in range(in_flight)))
    latencies, failed = Histogram(), 0
    before = {name: _cpu(process) for name, process in processes.items()}
    began = time.perf_counter()
    end = began + seconds
    await asyncio.gather(*(asker() for _ in range(in_flight)))
    took = time.perf_counter() - began
    count = sum(latencies.buckets.values())
    return Row(
        road,
        in_flight,
        count,
        count / took,
        latencies.summary(),
        {n: round((_cpu(p) - before[n]) / count * 1e6, 1) for n, p in processes.items()},
        failed,
    )


async def _starts(folder: Path, env: dict[str, str], url: str) -> list[float]:
    """Milliseconds from a command to its answer when nothing runs but the bridge."""
    took = []
    async with Activator(NAME, env, folder) as activator:
        with running(folder, env | {"K_SINK": activator.url}, "shared.hosts.bridge", NAME):
            async with asking(url) as inbox:
                for _ in range(STARTS):
                    await activator.scale_to_zero()
                    began = time.perf_counter()
                    if not await _ask(inbox):
                        raise LaptopError("a command failed while its function was started")
                    took.append(round((time.perf_counter() - began) * 1000, 1))
    return sorted(took)


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
