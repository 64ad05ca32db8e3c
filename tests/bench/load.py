"""A load process: `python -m tests.bench.load`. Hears a Job and then Calls on stdin, answers on stdout."""

import asyncio
import sys
from collections.abc import Callable
from typing import Protocol

import msgspec
import uvloop

from tests.bench.loads.chatters import Chatters
from tests.bench.loads.crowd import Crowd, Storm
from tests.bench.loads.fan_out import FanOut
from tests.bench.loads.pairs import Pairs
from tests.bench.loads.readers import Readers
from tests.bench.loads.reads import Reads
from tests.bench.loads.syncs import Syncs
from tests.bench.talk import Call, Job, Part, Result, Said

PROGRESS_S = 0.2


class Load(Protocol):
    """One way to use the server."""

    async def connect(self) -> Result:
        """Opens what it needs. Called once, first."""

    async def run(self, part: Part) -> Result:
        """Makes load and returns when all of it is answered."""

    def progress(self) -> int:
        """How much of the present part is begun."""


LOADS: dict[str, Callable[[Job], Load]] = {
    "chatters": Chatters,
    "crowd": Crowd,
    "fan_out": FanOut,
    "pairs": Pairs,
    "readers": Readers,
    "reads": Reads,
    "storm": Storm,
    "syncs": Syncs,
}


async def main() -> None:
    """Serves until stdin ends."""
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    job = msgspec.json.decode(await lines.readline(), type=Job)
    load = LOADS[job.kind](job)
    _say(Said())  # from here on its CPU time is that of the load
    while line := await lines.readline():
        call = msgspec.json.decode(line, type=Call)
        progress = loop.create_task(_report(load))
        try:
            result = await (load.run(call.part) if call.part else load.connect())
        finally:
            progress.cancel()
        _say(Said(result=result))


async def _report(load: Load) -> None:
    while True:
        await asyncio.sleep(PROGRESS_S)
        _say(Said(progress=load.progress()))


def _say(said: Said) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(said) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    uvloop.run(main())
