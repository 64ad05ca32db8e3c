"""The load processes, from the benchmark's side."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import msgspec

from tests.bench.stack import ROOT
from tests.bench.talk import Call, Job, Part, Result, Said

LINE = 64 << 20
"""Longest line that one may say: a histogram has a few kilobytes."""
STOP_S = 5.0


class LoadError(Exception):
    """A load process failed; its traceback stands on stderr."""


class Generators:
    """One process for each Job; all do the same at the same time."""

    def __init__(self, processes: Sequence[asyncio.subprocess.Process]) -> None:
        self._processes = processes

    @property
    def pids(self) -> list[int]:
        """Process ids."""
        return [process.pid for process in self._processes]

    async def call(self, call: Call, on_progress: Callable[[int], None]) -> Result:
        """Has all of them do something; returns what came of it together. Raises: LoadError."""
        done = [0] * len(self._processes)

        async def one(i: int, process: asyncio.subprocess.Process) -> Result:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(msgspec.json.encode(call) + b"\n")
            while line := await process.stdout.readline():
                said = msgspec.json.decode(line, type=Said)
                if said.result is not None:
                    return said.result
                done[i] = said.progress
                on_progress(sum(done))
            raise LoadError("a load process has ended early")

        total = Result()
        for result in await asyncio.gather(*(one(i, p) for i, p in enumerate(self._processes))):
            total.add(result)
        return total


@asynccontextmanager
async def generating(jobs: Sequence[Job]) -> AsyncIterator[Generators]:
    """Starts a process for each Job, and ends them."""
    processes: list[asyncio.subprocess.Process] = []
    try:
        for job in jobs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.bench.load",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                limit=LINE,
            )
            processes.append(process)
            assert process.stdin is not None
            process.stdin.write(msgspec.json.encode(job) + b"\n")
        for process in processes:
            assert process.stdout is not None
            if not await process.stdout.readline():
                raise LoadError("a load process has not started")
        yield Generators(processes)
    finally:
        for process in processes:
            if process.stdin is not None:
                process.stdin.close()  # on which it ends by itself, also if we are killed
        for process in processes:
            try:
                async with asyncio.timeout(STOP_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


def connect() -> Call:
    """Opens connections."""
    return Call("connect")


def run(part: Part) -> Call:
    """Makes load."""
    return Call("run", part)
