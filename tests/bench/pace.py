"""When the next request is due, and how long a part goes on."""

import asyncio
from collections.abc import Callable
from time import perf_counter

from tests.bench.talk import Part

TICK_S = 0.001
DRAIN_S = 20.0
"""Longer than the dead line of any command: who has no answer by then gets none."""


class Pace:
    """One part under way. `begin` is asked before each request."""

    def __init__(self, part: Part) -> None:
        self.started = perf_counter()
        self.begun = 0
        self._part = part
        self._over = False

    def begin(self) -> bool:
        """Whether one more request may start; counts it."""
        if self._over or (self._part.most and self.begun >= self._part.most):
            return False
        self.begun += 1
        return True

    @property
    def over(self) -> bool:
        """Whether nothing more will start."""
        return self._over or bool(self._part.most and self.begun >= self._part.most)

    async def run(self, start_one: Callable[[float], None]) -> None:
        """Returns when the part's time is over or its number reached.

        Open loop: calls `start_one` with the time at which each request is due, and is never behind for good: what
        a stall held up starts at once, and its latency counts from when it was due. Closed loop: only waits.
        """
        rate, due = self._part.rate, 0
        while not self.over and (now := perf_counter()) < self.started + self._part.seconds:
            if rate:
                while due <= (now - self.started) * rate and self.begin():
                    start_one(self.started + due / rate)
                    due += 1
            await asyncio.sleep(TICK_S if rate else 20 * TICK_S)
        self._over = True


async def settled(idle: Callable[[], bool]) -> bool:
    """Waits for what is still on its way; False if it does not come."""
    give_up = perf_counter() + DRAIN_S
    while not idle():
        if perf_counter() > give_up:
            return False
        await asyncio.sleep(0.01)
    return True
