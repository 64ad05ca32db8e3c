"""Patience: with servers that are away (records wait in the log), and with SQL, which hears of a message last."""

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
STORED_S = 2.0
LOOK_PAUSE_S = 0.05
"""So long, and with such pauses, SQL is asked for what was acked. While all is well that is stored within 0.1 s."""


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


async def until_stored(look: Callable[[], Awaitable[T | None]]) -> T | None:
    """What a look into SQL finds, repeated for STORED_S while it is None: messages are acked before they are stored."""
    loop = asyncio.get_running_loop()
    give_up = loop.time() + STORED_S
    while True:
        found = await look()
        if found is not None or loop.time() >= give_up:
            return found
        await asyncio.sleep(LOOK_PAUSE_S)
