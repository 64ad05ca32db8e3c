"""Runs one scenario on a system that it starts itself, and reports."""

import asyncio
import shutil
import tempfile
from pathlib import Path
from time import perf_counter

import msgspec

from tests.bench import cache, generators, groups, machine, profiling, stack, stored, usage
from tests.bench.histogram import Histogram
from tests.bench.loads.chatters import GIVEN_UP
from tests.bench.progress import Progress
from tests.bench.scenarios import SCENARIOS, Options, Scenario, complete, jobs
from tests.bench.talk import Part, Result

SETTLE_S = 1.0
"""How long memory is given to settle before it is read."""
ROAD = ("edge", "send", "timeline")
"""Whose CPU makes the budget of a message."""


class Report(msgspec.Struct, kw_only=True):
    """One scenario, measured once.

    per_s: each count by the seconds from the start to the last of it. cpu_us: microseconds of CPU for one `unit`.
    latency_ms: by what was waited for. memory_kib: before the connections, and for each one that stood then.
    problems: all of them must be 0, so the best report has none.
    """

    scenario: str
    options: Options
    unit: str
    commit: str
    machine: dict[str, str]
    counts: dict[str, int]
    per_s: dict[str, float]
    cpu_us: dict[str, float]
    latency_ms: dict[str, dict[str, float]]
    connections: int
    connects_per_s: float
    connect_cpu_us: dict[str, float]
    memory_kib: dict[str, dict[str, float]]
    problems: dict[str, int]
    cache_hit_rate: float | None = None
    profiled: bool = False


async def measure(options: Options, progress: Progress, root: Path = stack.ROOT) -> Report:
    """Runs a scenario against the source tree `root`. Raises: LaptopError, LoadError."""
    options = complete(options)
    folder = Path(tempfile.mkdtemp(prefix="natterjack-bench-"))
    about = machine.describe()
    try:
        progress.step("starting")
        kind = stack.KINDS[stack.KINDS.index(options.stack)]
        async with stack.running(
            kind, folder, root=root, workers=options.workers or 1, partitions=options.partitions
        ) as system:
            return await _Run(options, system, progress).report(about, machine.commit(root))
    finally:
        progress.end()
        shutil.rmtree(folder, ignore_errors=True)


class _Run:
    """One scenario on a running system."""

    def __init__(self, options: Options, system: stack.Stack, progress: Progress) -> None:
        self._options = options
        self._scenario: Scenario = SCENARIOS[options.scenario]
        self._system = system
        self._progress = progress
        self._expected = 0
        """Messages that must be in SQL when all is done."""
        self._problems = Result()

    async def report(self, about: dict[str, str], commit: str) -> Report:
        options, system = self._options, self._system
        users = self._scenario.users_of(options)
        await system.add_users(users)
        if self._scenario.kind == "fan_out":
            await groups.add_group(system.engine, range(1, max(users, options.members) + 1))
        await groups.add_quiet_groups(system.engine, users, options.groups)
        await self._seed()
        async with generators.generating(jobs(options, system.port, stack.SECRET)) as load:
            memory_before = usage.memory(system)
            cpu_before = usage.cpu(system, load.pids)
            connected = await load.call(generators.connect(), self._progress.step("connecting"))
            connect_cpu = usage.since(cpu_before, usage.cpu(system, load.pids))
            await asyncio.sleep(SETTLE_S)
            memory_after = usage.memory(system)
            if self._scenario.warm and options.warm_up:
                part = Part(seconds=options.warm_up, rate=options.rate)
                await self._settle(
                    await load.call(
                        generators.run(part), self._progress.step("warming up", part.seconds)
                    )
                )
            pages_before = await cache.pages(system)
            result, cpu = await self._measured(load)
            hit_rate = cache.hit_rate(pages_before, await cache.pages(system))
        system.check()
        problems = self._problems
        for part_result in (connected, result):
            problems.add(Result(problems=part_result.problems))
        exact = not any(name.startswith(("error", "unanswered")) for name in problems.problems)
        exact = exact and not result.counts.get(GIVEN_UP)
        problems.add(await stored.verify(system.engine, self._expected, exact=exact))
        units = result.counts.get(self._scenario.unit, 0)
        connections = connected.counts.get("connected", 0)
        latencies = connected.latencies | result.latencies
        return Report(
            scenario=options.scenario,
            options=options,
            unit=self._scenario.unit,
            commit=commit,
            machine=about,
            counts=result.counts,
            per_s={name: _rate(result.counts[name], s) for name, s in result.finished.items()},
            cpu_us=_each(cpu, units) if units else {},
            latency_ms={name: Histogram(buckets).summary() for name, buckets in latencies.items()},
            connections=connections,
            connects_per_s=_rate(connections, connected.finished.get("connected", 0.0)),
            connect_cpu_us=_each(connect_cpu, connections),
            memory_kib={
                name: {
                    "before": round(before / 1024),
                    "a connection": round(
                        (memory_after[name] - before) / 1024 / max(connections, 1), 2
                    ),
                }
                for name, before in memory_before.items()
            },
            problems=problems.problems,
            cache_hit_rate=hit_rate,
            profiled=options.profile,
        )

    async def _measured(self, load: generators.Generators) -> tuple[Result, usage.Seconds]:
        """The part that counts, from rest to rest: CPU covers just the messages that it began."""
        options = self._options
        part = Part(seconds=options.seconds, rate=options.rate, most=options.messages)
        before = usage.cpu(self._system, load.pids)
        started = perf_counter()
        async with profiling.recording(self._system, options):
            result = await load.call(
                generators.run(part), self._progress.step("measuring", part.seconds)
            )
            stored_at = await self._settle(result)
        if result.counts.get("acked"):
            result.counts["stored"] = result.counts["acked"]
            result.finished["stored"] = stored_at - started
        return result, usage.since(before, usage.cpu(self._system, load.pids))

    async def _settle(self, result: Result) -> float:
        """Waits until all that was acked is stored. Returns `perf_counter` of that moment."""
        self._expected += result.counts.get("acked", 0)
        return await stored.until(self._system.engine, self._expected)

    async def _seed(self) -> None:
        """Fills the conversations that the scenario reads."""
        number = self._scenario.seeded(self._options)
        if not number:
            return
        options = msgspec.structs.replace(self._options, scenario="p2p", in_flight=8, processes=1)
        seeds = Part(seconds=300.0, most=number * (options.pairs or 0))
        async with generators.generating(jobs(options, self._system.port, stack.SECRET)) as load:
            await load.call(generators.connect(), self._progress.step("connecting"))
            result = await load.call(generators.run(seeds), self._progress.step("filling"))
        self._problems.add(Result(problems=result.problems))
        await self._settle(result)


def _rate(count: int, seconds: float) -> float:
    return round(count / seconds, 1) if seconds > 0 else 0.0


def _each(cpu: usage.Seconds, units: int) -> dict[str, float]:
    """Microseconds a unit, with the sum of the road's Python processes first."""
    each = {name: round(seconds * 1e6 / max(units, 1), 1) for name, seconds in cpu.items()}
    return {"+".join(ROAD): round(sum(each[name] for name in ROAD), 1)} | each
