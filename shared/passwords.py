"""Passwords: argon2id in a small thread pool, so that a hash never holds up the event loop."""

import asyncio
import os
import secrets
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

from shared.errors import Unavailable

T = TypeVar("T")

MAX_WAITING = 100
"""Most hashes that wait: a longer queue would be answered after its callers' dead lines."""


class Passwords:
    """Hashes and verifies. `close` ends the threads."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        """`hasher` is for tests; by default OWASP's parameters: 19 MiB, two passes, one lane."""
        self._hasher = hasher or PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
        self._dummy = self._hasher.hash(secrets.token_urlsafe())
        self._threads = ThreadPoolExecutor(min(4, os.cpu_count() or 1), "argon2")
        self._waiting = 0

    async def hash(self, password: str) -> str:
        """The hash to store, with its salt and parameters, as `$argon2id$…`.

        Raises: Unavailable if too many wait.
        """
        return await self._run(lambda: self._hasher.hash(_normal(password)))

    async def verify(self, password: str, stored: str | None) -> bool:
        """Whether it is the password of the stored hash; False for None (no such user), as slowly.

        Raises: Unavailable if too many wait.
        """

        def check() -> bool:
            try:
                self._hasher.verify(self._dummy if stored is None else stored, _normal(password))
            except VerifyMismatchError:
                return False
            return stored is not None

        return await self._run(check)

    def close(self) -> None:
        """Ends the threads; what still waits is given up."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= MAX_WAITING:
            raise Unavailable("too many log-ins at once; nothing happened", retry_after_ms=1000)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1


def _normal(password: str) -> bytes:
    """Keyboards differ in how they compose é: the same password must be the same bytes."""
    return unicodedata.normalize("NFC", password).encode()
