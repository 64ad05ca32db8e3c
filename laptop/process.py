"""One child process: its log, its start, its end together with all that it started itself."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol


class LaptopError(Exception):
    """The laptop cannot start or go on; the message says why in its first line."""


class Guard(Protocol):
    """Is told of every process group, so that it can end them if the supervisor is killed."""

    def watch(self, group: int, grace: float) -> None: ...
    def forget(self, group: int) -> None: ...


class Process:
    """A child in a session of its own: Ctrl-C in the terminal reaches only the supervisor, and
    ending the child's process group also ends the grandchildren.

    `log` gets stdout and stderr; what it held before is kept as `<log>.1`.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        folder: Path,
        log: Path,
        env: Mapping[str, str] | None = None,
        grace: float = 10.0,
    ) -> None:
        """`grace`: seconds between the request to end and the force."""
        self.name = name
        self.log = log
        self.guard: Guard | None = None
        self._command = [str(part) for part in command]
        self._folder = folder
        self._env = dict(os.environ if env is None else env)
        self._grace = grace
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id, as long as it runs."""
        return self._popen.pid if self._popen and self._popen.poll() is None else None

    def launch(self) -> None:
        """Starts the process and does not wait for it. Raises: LaptopError."""
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            if self.log.exists():
                self.log.replace(self.log.with_name(f"{self.log.name}.1"))
            with self.log.open("wb") as output:
                self._popen = subprocess.Popen(
                    self._command,
                    cwd=self._folder,
                    env=self._env,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as error:
            raise LaptopError(f"{self.name} cannot be started: {error}") from None
        if self.guard:
            self.guard.watch(self._popen.pid, self._grace)

    def poll(self) -> int | None:
        """The exit status (negative: the signal), or None while it runs."""
        if self._popen is None:
            return None
        status = self._popen.poll()
        if status is not None:
            self._end_group()
        return status

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the process, if it runs."""
        if self._popen is not None:
            self._popen.send_signal(number)

    def stop(self) -> None:
        """Asks the process to end and waits; after `grace` seconds it is killed."""
        if self.pid is None or self._popen is None:
            return
        self._popen.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(self._grace)
        self.kill()

    def kill(self) -> None:
        """Ends the process and its children by SIGKILL and waits for it."""
        if self._popen is not None:
            self._end_group()
            self._popen.wait()

    def _end_group(self) -> None:
        assert self._popen is not None
        with suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        if self.guard:
            self.guard.forget(self._popen.pid)

    def last_lines(self, count: int = 8) -> str:
        """The end of the log, indented, for a person."""
        with suppress(OSError):
            lines = self.log.read_text(errors="replace").splitlines()
            return "".join(f"\n    {line[:300]}" for line in lines[-count:])
        return ""


def describe(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"exit status {status}"
    with suppress(ValueError):
        return f"killed by {signal.Signals(-status).name}"
    return f"killed by signal {-status}"
