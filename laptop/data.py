"""The data folder: its lock, and what is made once and kept (secrets, ports)."""

import fcntl
import itertools
import json
import os
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from laptop.ports import free_ports, is_free
from laptop.process import LaptopError

# Longer than the guard of a killed supervisor takes to end what that one left.
_LEFTOVERS_S = 20.0


class DataFolder:
    """`IM_DATA_DIR` in the hands of one supervisor.

    Raises: LaptopError if the folder cannot be used or somebody else uses it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self.lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            (path / "secrets").mkdir(mode=0o700, exist_ok=True)
            (path / "logs").mkdir(exist_ok=True)
        except OSError as error:
            reason = error.strerror or error
            raise LaptopError(f"IM_DATA_DIR: cannot use {path} as data folder: {reason}") from None
        self._take()

    def _take(self) -> None:
        deadline = time.monotonic() + _LEFTOVERS_S
        while True:
            try:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                owner = os.pread(self.lock, 20, 0).decode()
                if _runs(owner) or time.monotonic() > deadline:
                    raise LaptopError(
                        f"{self.path} is in use by process {owner}"
                        " (stop it, or set IM_DATA_DIR to another folder)"
                    ) from None
                time.sleep(0.05)
        os.ftruncate(self.lock, 0)
        os.pwrite(self.lock, str(os.getpid()).encode(), 0)

    def close(self) -> None:
        """Gives the folder back."""
        os.close(self.lock)

    def log(self, name: str) -> Path:
        """Where a process writes."""
        return self.path / "logs" / f"{name}.log"

    def secret(self, name: str) -> str:
        """A random secret of 43 characters, made at the first call ever. Only its owner may read the file."""
        file = self.path / "secrets" / name
        try:
            if not file.exists():
                _write(file, secrets.token_urlsafe(32))
            return file.read_text().strip()
        except OSError as error:
            raise LaptopError(f"cannot read {file}: {error.strerror}") from None

    def ports(self, name: str, count: int = 1, configured: int | None = None) -> list[int]:
        """Ports for `name`: the same as last time as long as they are free. `configured` becomes the first of them."""
        file = self.path / "ports.json"
        known: dict[str, list[int]] = {}
        with suppress(OSError, ValueError):
            known = json.loads(file.read_text())
        ports = known.get(name, [])
        taken = {configured, *itertools.chain(*known.values())}
        if configured in ports[1:] or len(ports) != count or not all(map(is_free, ports)):
            ports = free_ports(count, taken)
        if configured is not None:
            ports[0] = configured
        _write(file, json.dumps(known | {name: ports}))
        return ports

    def write_run(self, content: Mapping[str, object]) -> None:
        """Tells other programs (`run.json`) where what runs can be reached. URLs may hold passwords: owner only."""
        _write(self.path / "run.json", json.dumps(content, indent=2))

    def remove_run(self) -> None:
        """Nothing runs any more."""
        (self.path / "run.json").unlink(missing_ok=True)


def _write(file: Path, text: str) -> None:
    """Replaces a file as a whole, so that a crash leaves the old or the new one."""
    draft = file.with_name(f"{file.name}.new")
    draft.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as output:
            output.write(text)
        draft.replace(file)
    except OSError as error:
        raise LaptopError(f"cannot write {file}: {error.strerror}") from None


def _runs(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True
