"""Where a device remembers how far it has each conversation."""

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from clients.python.natterjack.files import write_atomically

SAVE_EVERY_S = 1.0
"""How much work a killed process may see again."""

log = logging.getLogger(__name__)


class Reached(NamedTuple):
    """Everything up to `seq`, and every change up to `rev`, has been handled by the application.

    `read`: how far the user has read, on any device.
    """

    seq: int = 0
    rev: int = 0
    read: int = 0


class PositionStore(Protocol):
    """A place for positions by conversation id."""

    def load(self) -> dict[str, Reached] | None:
        """What was saved last; None on a new device."""
        ...

    def save(self, positions: Mapping[str, Reached]) -> None:
        """Replaces all of it."""
        ...


class MemoryPositions:
    """Lives as long as the process: the next client that gets the same one goes on where the last one stopped."""

    def __init__(self) -> None:
        self._positions: dict[str, Reached] | None = None

    def load(self) -> dict[str, Reached] | None:
        """What was saved last; None on a new device."""
        return None if self._positions is None else dict(self._positions)

    def save(self, positions: Mapping[str, Reached]) -> None:
        """Replaces all of it."""
        self._positions = dict(positions)


class FilePositions:
    """A JSON file, replaced as a whole. One process at a time; written by the client about once a second."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> dict[str, Reached] | None:
        """What was saved last; None on a new device. Raises: ValueError naming the file if it is damaged."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, Reached])
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            raise ValueError(
                f"{self._path} is damaged ({error}); remove it to start anew"
            ) from error

    def save(self, positions: Mapping[str, Reached]) -> None:
        """Replaces all of it."""
        write_atomically(self._path, msgspec.json.encode(positions))


class Progress:
    """What the application has handled, saved at most once per `SAVE_EVERY_S` and at the end.

    A message counts only when the application has asked for the next one: after a crash it may see the last ones
    again, but never misses one.
    """

    def __init__(self, store: PositionStore) -> None:
        self._store = store
        self.at_start = store.load()
        self._positions = dict(self.at_start or {})
        self._timer: asyncio.TimerHandle | None = None

    def mark(self, conversation_id: str | None, reached: Reached) -> None:
        """Moves one position forward; without a conversation: only says that this device is not new any more."""
        if conversation_id is not None:
            old = self._positions.get(conversation_id, Reached())
            self._positions[conversation_id] = Reached(*map(max, old, reached))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SAVE_EVERY_S, self.save)

    def save(self) -> None:
        """Saves what changed since the last time."""
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer = None
        try:
            self._store.save(self._positions)
        except OSError as error:
            log.warning("positions are not saved: %s", error)
