"""Starts everything in order, starts again what ends by itself, and stops everything in reverse order."""

import asyncio
import signal
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit, urlunsplit

from minio.error import MinioException
from urllib3.exceptions import HTTPError

from laptop.data import DataFolder
from laptop.guard import GuardProcess
from laptop.plan import Plan
from laptop.process import LaptopError, Process, describe
from laptop.servers import Server
from migrations.bucket import ensure_bucket

START_S = 60.0
_BACK_OFF_S = 0.2
_BACK_OFF_MAX_S = 10.0
# Who lived this long is not in a loop of crashes.
_HEALTHY_S = 30.0


class Supervisor:
    """Runs a plan until `stop` is called or a signal comes."""

    def __init__(self, plan: Plan, data: DataFolder, say: Callable[[str], None]) -> None:
        """`say` shows a line to the person at the terminal."""
        self._plan = plan
        self._data = data
        self._say = say
        self._stop = asyncio.Event()
        self._child_ended = asyncio.Event()
        self._running: list[Process] = []

    async def run(self) -> None:
        """Returns when all has ended after a signal. Raises: LaptopError if something does not start."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGCHLD, self._on_child_ended)
        guard = GuardProcess(self._data.lock)
        for process in (*self._staying, self._plan.migrations):
            process.guard = guard
        work = asyncio.create_task(self._work())
        stop = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                self._say("stopping …")
                work.cancel()
            with suppress(asyncio.CancelledError):
                await work
        finally:
            stop.cancel()
            await self._stop_all()
            self._data.remove_run()
            guard.close()

    @property
    def _servers(self) -> list[Server]:
        return [*self._plan.servers, *([self._plan.s3] if self._plan.s3 else [])]

    @property
    def _staying(self) -> list[Process]:
        return [*self._servers, self._plan.functions, self._plan.edge]

    async def _work(self) -> None:
        """Starts everything, then keeps it running. Only ends by cancellation or LaptopError."""
        started = time.monotonic()
        plan = self._plan
        for server in self._servers:
            self._launch(server)
        for server in plan.servers:
            await self._until_ready(server, server.ready)
        await self._migrate()
        self._launch(plan.functions)
        self._launch(plan.edge)
        await self._until_ready(plan.functions, lambda: _serves(plan.functions))
        await self._until_ready(plan.edge, lambda: _answers(f"{plan.urls['http']}/readyz"))
        if plan.s3:
            await self._until_ready(plan.s3, plan.s3.ready)
            await self._make_bucket()
        self._write_run()
        self._say(banner(plan, self._data, time.monotonic() - started))
        async with asyncio.TaskGroup() as group:
            for process in self._staying:
                group.create_task(self._keep(process))

    def _launch(self, process: Process) -> None:
        # Before the launch: if it is interrupted half-way, the process is stopped all the same.
        self._running.append(process)
        process.launch()

    async def _until_ready(self, process: Process, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_S
        while not await asyncio.to_thread(ready):
            status = process.poll()
            if status is not None:
                raise LaptopError(
                    f"{process.name} ended at its start: {describe(status)}{process.last_lines()}"
                )
            if time.monotonic() > deadline:
                raise LaptopError(
                    f"{process.name} was not ready within {START_S:.0f} s{process.last_lines()}"
                )
            await asyncio.sleep(0.02)

    async def _migrate(self) -> None:
        migrations = self._plan.migrations
        self._launch(migrations)
        status = await self._ended(migrations)
        self._running.remove(migrations)
        if status:
            raise LaptopError(f"migrations failed: {describe(status)}{migrations.last_lines()}")

    async def _make_bucket(self) -> None:
        try:
            await asyncio.to_thread(ensure_bucket, self._plan.settings)
        except (MinioException, HTTPError) as error:
            raise LaptopError(f"cannot make the bucket on the S3 server: {error}") from None

    async def _keep(self, process: Process) -> None:
        """Starts the process again whenever it ends, at most every ten seconds if it does so again and again."""
        delay = _BACK_OFF_S
        while True:
            since = time.monotonic()
            status = await self._ended(process)
            if time.monotonic() - since > _HEALTHY_S:
                delay = _BACK_OFF_S
            self._say(
                f"{process.name} ended ({describe(status)}), starts again in {delay:.1f} s; "
                f"its log: {process.log}.1"
            )
            await asyncio.sleep(delay)
            delay = min(2 * delay, _BACK_OFF_MAX_S)
            try:
                process.launch()
                self._write_run()
            except LaptopError as error:
                self._say(str(error))

    async def _ended(self, process: Process) -> int:
        while (status := process.poll()) is None:
            await self._child_ended.wait()
        return status

    def _on_child_ended(self) -> None:
        """Wakes all that wait for a child; each looks after its own."""
        ended, self._child_ended = self._child_ended, asyncio.Event()
        ended.set()

    async def _stop_all(self) -> None:
        """Edge, then functions, then all servers at once."""
        for process in reversed(
            [process for process in self._running if process not in self._servers]
        ):
            await asyncio.to_thread(process.stop)
        await asyncio.gather(*(asyncio.to_thread(server.stop) for server in self._servers))

    def _write_run(self) -> None:
        pids = {process.name: process.pid for process in self._staying}
        content = {"urls": self._plan.urls, "data_dir": str(self._data.path), "pids": pids}
        self._data.write_run(content)


def banner(plan: Plan, data: DataFolder, seconds: float) -> str:
    """What a person needs to begin with."""
    lines = [f"Natterjack runs ({seconds:.1f} s). Ctrl-C stops it; the data stay.", ""]
    lines += [f"  {name:<6} {without_password(url)}" for name, url in plan.urls.items()]
    lines += [f"  data   {data.path}", "", "  Talk:  ./task chat -- --user alice"]
    return "\n".join(lines)


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _serves(functions: Process) -> bool:
    """Whether the functions have said that all of them are subscribed."""
    with suppress(OSError):
        return '"serving ' in functions.log.read_text(errors="replace")
    return False


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as response:  # noqa: S310 - our own address
            return bool(response.status == 200)
    except OSError:
        return False
