"""`crowd`: connections that only are there. `storm`: the same, and when it is run all of them break and come back."""

import asyncio
from collections.abc import Iterable
from time import perf_counter

from tests.bench.histogram import Histogram
from tests.bench.talk import Job, Part, Result
from tests.bench.wire import Connection

AT_ONCE = 256
"""Handshakes under way while a crowd gathers: fewer than the listener's backlog."""


async def open_all(
    connections: Iterable[tuple[int, Connection]], job: Job, name: str, at_once: int
) -> Result:
    """Opens the connections of these users, so many at a time; who is refused is a problem."""
    result, times = Result(), Histogram()
    waiting = iter(connections)
    started = perf_counter()

    async def work() -> None:
        for user_id, connection in waiting:
            try:
                times.record(await connection.open(job, user_id))
                result.count(name)
            except (OSError, TimeoutError) as error:
                result.problem(f"not {name}: {type(error).__name__}")

    async with asyncio.TaskGroup() as tasks:
        for _ in range(at_once):
            tasks.create_task(work())
    result.finished[name] = perf_counter() - started
    result.latencies[name] = times.buckets
    return result


class Crowd:
    """See `tests.bench.load.Load`. Every connection has a user of its own."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.connections = [(job.first + i, Connection()) for i in range(job.users)]

    async def connect(self) -> Result:
        """Opens all, as fast as the server takes them."""
        return await open_all(self.connections, self.job, "connected", AT_ONCE)

    async def run(self, part: Part) -> Result:
        """Holds them; none may be lost."""
        await asyncio.sleep(part.seconds)
        result = Result()
        result.problem(
            "connections lost", sum(connection.lost for _, connection in self.connections)
        )
        return result

    def progress(self) -> int:
        """Connections that stand."""
        return sum(connection.live for _, connection in self.connections)


class Storm(Crowd):
    """Everybody comes back at the same moment, as after a network's failure."""

    async def run(self, part: Part) -> Result:  # noqa: ARG002 - it is over when all are back
        """Breaks all connections and opens them again."""
        await asyncio.gather(*(connection.drop() for _, connection in self.connections))
        return await open_all(self.connections, self.job, "reconnected", len(self.connections))
