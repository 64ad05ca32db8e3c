"""Flame graphs of our own processes while a scenario runs, by py-spy."""

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.bench.scenarios import Options
from tests.bench.stack import Stack

FOLDER = Path(".bench")
RATE_HZ = 250
PROFILED = ("edge", "send", "timeline", "history")
END_S = 20.0


@asynccontextmanager
async def recording(stack: Stack, options: Options) -> AsyncIterator[None]:
    """Writes `.bench/<scenario>-<part>.svg` of what runs in the block, if `options.profile`."""
    if not options.profile:
        yield
        return
    program = shutil.which("py-spy") or shutil.which("py-spy", path=str(Path(sys.prefix) / "bin"))
    if program is None:
        print("no profile: py-spy is not installed", file=sys.stderr)
        yield
        return
    FOLDER.mkdir(exist_ok=True)
    recorders = []
    for name in PROFILED:
        path = FOLDER / f"{options.scenario}-{options.stack}-{name}.svg"
        process = await asyncio.create_subprocess_exec(
            *(program, "record", "--pid", str(stack.parts[name].pid), "--output", str(path)),
            *("--rate", str(RATE_HZ), "--subprocesses", "--duration", "3600"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        recorders.append((name, path, process))
    try:
        yield
    finally:
        for name, path, process in recorders:
            await _finish(name, path, process)


async def _finish(name: str, path: Path, process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.send_signal(2)  # on which it writes what it has
    try:
        async with asyncio.timeout(END_S):
            _, said = await process.communicate()
    except TimeoutError:
        process.kill()
        _, said = await process.communicate()
    if path.exists():
        print(f"profile of {name}: {path}", file=sys.stderr)
    else:
        reason = said.decode(errors="replace").strip().splitlines() or ["no reason given"]
        print(f"no profile of {name}: {reason[-1]}", file=sys.stderr)
