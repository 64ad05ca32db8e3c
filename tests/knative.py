"""What Knative does for one function, as far as our processes can tell: an activator and the pods behind it.

A process is started by the first request, which waits until the process is ready; it gets PORT, K_SERVICE, K_REVISION,
a folder it cannot write to, and SIGTERM when it is no longer needed. A request whose process died under it is 502.
"""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import web

from laptop.ports import free_ports
from shared.hosts.web import MAX_BODY

ROOT = Path(__file__).parent.parent
READ_ONLY = ROOT / "tests" / "pod"
"""Holds what makes a process of Python find its file system read-only."""
READY_S = 30.0
GRACE_S = 15.0


class Pod:
    """One process of a function, ready when `started` is done."""

    def __init__(self, name: str, revision: int, env: Mapping[str, str], log: Path) -> None:
        self.port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        self._home = tempfile.mkdtemp(prefix="natterjack-pod-")
        Path(self._home).chmod(0o555)
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "functions", name],
                cwd=self._home,
                env={
                    **env,
                    "PYTHONPATH": os.pathsep.join((str(READ_ONLY), str(ROOT))),
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "HOME": "/tmp",
                    "PORT": str(self.port),
                    "K_SERVICE": name,
                    "K_CONFIGURATION": name,
                    "K_REVISION": f"{name}-{revision:05}",
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    async def ready(self, http: aiohttp.ClientSession) -> None:
        """Probes as the kubelet does."""
        async with asyncio.timeout(READY_S):
            while True:
                with suppress(aiohttp.ClientError):
                    async with http.get(f"{self.url}/readyz") as response:
                        if response.status == 200:
                            return
                assert self.process.poll() is None, self.log.read_text()[-2000:]
                await asyncio.sleep(0.02)

    async def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.process.terminate()
        return await self._ended()

    async def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        await self._ended()

    async def _ended(self) -> int:
        try:
            return await asyncio.to_thread(self.process.wait, GRACE_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise
        finally:
            with suppress(OSError):
                Path(self._home).rmdir()


class Activator:
    """The address of one function, as an async context manager. Counts `cold_starts`."""

    def __init__(self, name: str, env: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self.cold_starts = 0
        self.statuses: list[int] = []
        """Exit statuses of the pods that were told to stop."""
        self._env = env
        self._log = folder / f"{name}.pods.log"
        self._pod: Pod | None = None
        self._revision = 0
        self._turn = asyncio.Lock()
        self._stopping: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), auto_decompress=False
        )
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_post("/", self._forward)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{port}"
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None and self._log.exists():
            print(f"--- {self.name}\n{self._log.read_text()[-3000:]}")
        await self.scale_to_zero()
        await asyncio.gather(*self._stopping)
        await self._runner.cleanup()
        await self._http.close()

    @property
    def running(self) -> bool:
        """Whether there is a pod."""
        return self._pod is not None

    async def roll(self) -> None:
        """A new revision takes the place of the pod there is; that one is then told to stop."""
        async with self._turn:
            old, self._pod = self._pod, await self._start()
        if old is not None:
            self._stop(old)

    async def scale_to_zero(self) -> None:
        """Tells the pod to stop, if there is one; returns when it has ended."""
        async with self._turn:
            old, self._pod = self._pod, None
        if old is not None:
            self.statuses.append(await old.stop())

    async def kill(self) -> None:
        """Kills the pod, requests in it included."""
        async with self._turn:
            old, self._pod = self._pod, None
        if old is not None:
            await old.kill()

    def _stop(self, pod: Pod) -> None:
        async def stop() -> None:
            self.statuses.append(await pod.stop())

        task = asyncio.create_task(stop())
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def _start(self) -> Pod:
        self._revision += 1
        pod = Pod(self.name, self._revision, self._env, self._log)
        await pod.ready(self._http)
        return pod

    async def _awake(self) -> Pod:
        """The pod; requests wait here while it starts."""
        pod = self._pod
        if pod is not None:
            return pod
        async with self._turn:
            if self._pod is None:
                self.cold_starts += 1
                self._pod = await self._start()
            return self._pod

    async def _forward(self, request: web.Request) -> web.Response:
        body = await request.read()
        while True:
            pod = await self._awake()
            try:
                async with self._http.post(
                    f"{pod.url}/", data=body, headers=request.headers
                ) as response:
                    content = await response.read()
                    headers = {
                        k: v
                        for k, v in response.headers.items()
                        if k.lower() not in ("connection", "content-length", "date", "server")
                    }
                    return web.Response(status=response.status, headers=headers, body=content)
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0.01)  # it is going away: nothing was sent
            except aiohttp.ClientError:
                return web.Response(status=502, text="the pod's connection broke")
