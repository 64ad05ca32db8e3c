"""Gathers what one turn of the event loop writes: a socket with several frames gets them in one system call."""

import asyncio
from typing import Protocol


class Writer(Protocol):
    """A connection with frames that wait."""

    def flush(self) -> None:
        """Hands everything that waits to the transport."""


class Outbox:
    """The connections of one worker that have something to write."""

    __slots__ = ("_loop", "_writers")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._writers: list[Writer] = []

    def add(self, writer: Writer) -> None:
        """`writer.flush` is called at the end of this turn. Add a writer once for each flush."""
        if not self._writers:
            self._loop.call_soon(self._flush)
        self._writers.append(writer)

    def _flush(self) -> None:
        writers, self._writers = self._writers, []
        for writer in writers:
            writer.flush()
