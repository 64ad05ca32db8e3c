"""Patience: what a reader of the log does while a server is away. Nothing is lost by it: records wait in the log."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from shared.errors import Unavailable, UnknownOutcome
from shared.log import NotAppendedError

log = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_S = (0.1, 2.0)
"""First and longest pause between tries."""


class AwayError(Exception):
    """A server did not do it, or nobody knows whether it did. The call may be repeated."""


AWAY = (AwayError, Unavailable, UnknownOutcome, NotAppendedError)


class Counts(Protocol):
    """Where failed tries are counted."""

    failures: int


async def patiently(call: Callable[[], Awaitable[T]], counts: Counts) -> T:
    """Repeats a call for as long as it fails with one of AWAY."""
    pause, longest = RETRY_S
    while True:
        try:
            return await call()
        except AWAY as error:
            counts.failures += 1
            log.warning("waiting: %s", str(error) or type(error).__name__)
        await asyncio.sleep(pause)
        pause = min(2 * pause, longest)
