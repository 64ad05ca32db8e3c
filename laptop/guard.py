"""Ends the supervisor's children if it is killed itself.

Runs as a process of its own with the supervisor's pipe as stdin: `+ <process group> <seconds>` and
`- <process group>`, one a line. When the pipe ends, whatever is still watched gets SIGTERM and, after its seconds,
SIGKILL. It also keeps the data folder's lock open until then, so that nobody starts on data that is still in use.
(Linux could send a signal on the parent's death by itself, but only to children and not to theirs, and only there.)
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress


class GuardProcess:
    """The supervisor's end of the pipe."""

    def __init__(self, lock: int) -> None:
        """`lock`: file descriptor of the locked file of the data folder."""
        self._popen = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            pass_fds=[lock],
            start_new_session=True,
        )

    def watch(self, group: int, grace: float) -> None:
        """From now on the group ends with the supervisor, by force after `grace` seconds."""
        self._write(f"+ {group} {grace}\n")

    def forget(self, group: int) -> None:
        """The group has ended; its number may come to belong to others."""
        self._write(f"- {group}\n")

    def close(self) -> None:
        """Ends the guard, and with it what is still watched."""
        assert self._popen.stdin is not None
        with suppress(BrokenPipeError):
            self._popen.stdin.close()
        self._popen.wait()

    def _write(self, line: str) -> None:
        assert self._popen.stdin is not None
        with suppress(
            BrokenPipeError
        ):  # somebody ended the guard; the supervisor still does its own part
            self._popen.stdin.write(line.encode())
            self._popen.stdin.flush()


def main() -> None:
    """Reads until the supervisor is gone, then ends what it left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: dict[int, float] = {}
    for line in sys.stdin:
        match line.split():
            case ["+", group, grace]:
                groups[int(group)] = float(grace)
            case ["-", group]:
                groups.pop(int(group), None)
    end(groups)


def end(groups: dict[int, float]) -> None:
    """SIGTERM, a bounded wait, SIGKILL. `groups`: seconds for each."""
    start = time.monotonic()
    left = {group for group in groups if send(group, signal.SIGTERM)}
    while left:
        time.sleep(0.02)
        late = {group for group in left if time.monotonic() - start > groups[group]}
        for group in late:
            send(group, signal.SIGKILL)
        left = {group for group in left - late if send(group, 0)}


def send(group: int, number: int) -> bool:
    """Whether the group still has a process."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    main()
