"""Many callers, one round trip: collects what is asked for within one turn of the event loop and answers it together.

This is where the road's speed comes from: handlers are written one command at a time, and what they share below
costs one Redis or SQL call for all that wait.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

BatchCall = Callable[[list[K]], Awaitable[Sequence[V]]]


class Coalescer(Generic[K, V]):
    """Answers `ask(key)` by calling `call(keys)`, which returns one value per key, in order.

    At most `parallel` calls run at a time: while they do, further keys gather into the next, larger call.
    An exception of `call` reaches every caller of that batch.
    """

    def __init__(self, call: "BatchCall[K, V]", *, most: int = 500, parallel: int = 2) -> None:
        self._call = call
        self._most = most
        self._free = parallel
        self._waiting: list[tuple[K, asyncio.Future[V]]] = []
        self._scheduled = False
        self._tasks: set[asyncio.Task[None]] = set()

    def ask(self, key: K) -> "asyncio.Future[V]":
        """The value of `key`, from the next batch."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[V] = loop.create_future()
        self._waiting.append((key, answer))
        if not self._scheduled and self._free:
            self._scheduled = True
            loop.call_soon(self._start)
        return answer

    def _start(self) -> None:
        self._scheduled = False
        while self._free and self._waiting:
            batch, self._waiting = (
                self._waiting[: self._most],
                self._waiting[self._most :],
            )
            self._free -= 1
            task = asyncio.get_running_loop().create_task(self._run(batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, batch: "list[tuple[K, asyncio.Future[V]]]") -> None:
        try:
            values = await self._call([key for key, _ in batch])
            for (_, answer), value in zip(batch, values, strict=True):
                if not answer.done():
                    answer.set_result(value)
        except Exception as error:  # noqa: BLE001 - it belongs to the callers
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
        finally:
            self._free += 1
            if self._waiting and not self._scheduled:
                self._start()
