"""The connections of one process, opened when first asked for and closed in reverse order."""

import asyncio
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import redis.asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.adapters.log import LateWriter, open_log_writer
from shared.adapters.nats import NatsBus
from shared.adapters.redis import open_redis
from shared.adapters.sql import open_engine
from shared.log import LogWriter
from shared.settings import Settings


class Resources:
    """What the lifespans of functions draw on; functions in one process share one connection of each kind."""

    def __init__(self, settings: Settings, bus: NatsBus) -> None:
        self.settings = settings
        self.bus = bus
        self._stack = AsyncExitStack()
        self._failure: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self._engine: AsyncEngine | None = None
        self._reader: AsyncEngine | None = None
        self._redis: redis.asyncio.Redis | None = None
        self._writer: LogWriter | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    def engine(self) -> AsyncEngine:
        """SQL (IM_DB_URL)."""
        if self._engine is None:
            self._engine = open_engine(self.settings.require("db_url"))
            self._stack.push_async_callback(self._engine.dispose)
        return self._engine

    def reader(self) -> AsyncEngine:
        """The same SQL for what reads without a snapshot: a statement is one round trip, with no transaction around."""
        engine = self.engine()
        if engine.dialect.name == "sqlite":
            return engine  # nothing goes over a wire there
        if self._reader is None:
            self._reader = open_engine(self.settings.require("db_url"), autocommit=True)
            self._stack.push_async_callback(self._reader.dispose)
        return self._reader

    def redis(self) -> redis.asyncio.Redis:
        """Redis (IM_REDIS_URL). Connects on first use: nothing that must be right depends on it."""
        if self._redis is None:
            self._redis = open_redis(self.settings.require("redis_url"))
            self._stack.push_async_callback(self._redis.aclose)
        return self._redis

    async def writer(self) -> LogWriter:
        """The log (IM_LOG_URL), for appending."""
        if self._writer is None:
            self._writer = await self._stack.enter_async_context(
                open_log_writer(self.settings, self.bus)
            )
        return self._writer

    def late_writer(self) -> LogWriter:
        """The log, for appending, opened with the first record."""
        return LateWriter(self.writer)

    def watch(self, task: "asyncio.Task[None]") -> None:
        """Ends this process if a background task of a function fails: half a function would be worse than none."""
        task.add_done_callback(self._ended)

    async def failed(self) -> BaseException:
        """Waits until a watched task fails and returns why."""
        return await asyncio.shield(self._failure)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if (
            not task.cancelled()
            and (error := task.exception()) is not None
            and not self._failure.done()
        ):
            self._failure.set_result(error)
