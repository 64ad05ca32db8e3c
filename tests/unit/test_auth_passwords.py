import asyncio
import threading

import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.low_level import Type

from shared.errors import Unavailable
from shared.passwords import MAX_WAITING, Passwords


class Spy(PasswordHasher):
    """Remembers which hash was verified, and on which thread."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.calls: list[tuple[str, str]] = []
        self.go = threading.Event()
        self.go.set()

    def verify(self, hash: str | bytes, password: str | bytes) -> bool:  # type: ignore[override]  # noqa: A002
        self.go.wait()
        self.calls.append((str(hash), threading.current_thread().name))
        return bool(super().verify(hash, password))


async def test_round_trip() -> None:
    passwords = Passwords(Spy())
    stored = await passwords.hash("secret-é")
    assert await passwords.verify("secret-é", stored)
    assert await passwords.verify("secret-e\u0301", stored), "the same é from another keyboard"
    assert not await passwords.verify("secret-e", stored)
    assert stored != await passwords.hash("secret-é"), "each has its own salt"
    passwords.close()


async def test_default_parameters_are_owasps() -> None:
    passwords = Passwords()
    parameters = extract_parameters(await passwords.hash("x"))
    passwords.close()
    assert parameters.type is Type.ID
    assert (parameters.memory_cost, parameters.time_cost, parameters.parallelism) == (19456, 2, 1)


async def test_an_unknown_user_costs_the_same_hash_off_the_loop() -> None:
    spy = Spy()
    passwords = Passwords(spy)
    stored = await passwords.hash("right")
    assert not await passwords.verify("wrong", stored)
    assert not await passwords.verify("wrong", None)
    passwords.close()
    (known, thread), (unknown, _) = spy.calls
    assert extract_parameters(known) == extract_parameters(unknown)
    assert thread.startswith("argon2")


async def test_a_longer_queue_than_can_be_answered_is_refused() -> None:
    spy = Spy()
    passwords = Passwords(spy)
    stored = await passwords.hash("right")
    spy.go.clear()
    waiting = [asyncio.ensure_future(passwords.verify("right", stored)) for _ in range(MAX_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable) as refused:
        await passwords.verify("right", stored)
    assert refused.value.retry_after_ms
    spy.go.set()
    assert all(await asyncio.gather(*waiting))
    assert await passwords.verify("right", stored)
    passwords.close()
