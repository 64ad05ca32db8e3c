"""Runs the handlers of functions in process, by the same path as every host: `shared.invoke`."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

import msgspec
from argon2 import PasswordHasher

import functions.auth
import functions.friend_apply
import functions.friends
import functions.presence
import functions.profile
from migrations.schema import upgrade
from shared.adapters.memory import MemoryBus
from shared.adapters.nats import NatsBus
from shared.function import Context, Function
from shared.invoke import invoke
from shared.passwords import Passwords
from shared.resources import Resources
from shared.settings import Settings

NOW = 1_800_000_000_000
PASSWORD = "correct horse"
SECRET = "0123456789abcdef0123456789abcdef"


class QuickPasswords(Passwords):
    """Argon2id with the least work, and a list of the hashes that were verified against."""

    def __init__(self) -> None:
        super().__init__(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
        self.verified: list[str | None] = []

    async def verify(self, password: str, stored: str | None) -> bool:
        self.verified.append(stored)
        return await super().verify(password, stored)


class Service:
    """Functions with the clock in the test's hand. pushed: (user, type, data) of what was published, but `kicked`."""

    def __init__(self, resources: Resources, bus: MemoryBus, passwords: QuickPasswords) -> None:
        self.resources = resources
        self.passwords = passwords
        self.now = NOW
        self.kicked: list[tuple[str, str, str]] = []
        self.pushed: list[tuple[int, str, Any]] = []
        self._bus = bus
        self._deps: dict[str, Any] = {}
        self._handlers: dict[str, tuple[str, Any]] = {}
        bus.listen("im.v1.user.*", self._pushed)

    async def add(self, function: Function[Any], stack: AsyncExitStack) -> None:
        """Opens a function by its own lifespan."""
        deps = await stack.enter_async_context(function.lifespan(self.resources))
        if hasattr(deps, "passwords"):
            deps = msgspec.structs.replace(deps, passwords=self.passwords)
        self._deps[function.name] = deps
        for handler in function.handlers:
            self._handlers[handler.command.type] = (function.name, handler)

    def change(self, function: str, **deps: object) -> None:
        """Puts other deps in the place of a function's own."""
        self._deps[function] = msgspec.structs.replace(self._deps[function], **deps)

    def deps(self, function: str) -> Any:
        return self._deps[function]

    async def call(
        self, command: str, data: Mapping[str, object], *, user: int = 0, session: str = ""
    ) -> Any:
        """The decoded answer. Raises: AppError."""
        function, handler = self._handlers[command]
        ctx = Context(user, self._deps[function], self.now, session=session)
        answer = await invoke(handler, msgspec.json.encode(data), ctx, self._bus, None)
        await self._bus.flush()
        return msgspec.json.decode(answer or b"null")

    async def register(self, username: str, password: str = PASSWORD) -> int:
        me = await self.call("auth.register", {"username": username, "password": password})
        return int(me["user_id"])

    async def login(self, username: str, password: str = PASSWORD, **data: object) -> Any:
        """Tokens with the session's id as `sid`."""
        request = {"username": username, "password": password, **data}
        tokens = await self.call("auth.login", request)
        return tokens | {"sid": tokens["refresh_token"].partition(".")[0]}

    async def refresh(self, token: str) -> str:
        """The next refresh token."""
        tokens = await self.call("auth.refresh", {"refresh_token": token})
        return str(tokens["refresh_token"])

    def take_pushed(self) -> list[tuple[int, str, Any]]:
        """What was published since the last call."""
        pushed, self.pushed = self.pushed, []
        return pushed

    def _pushed(self, subject: str, _reply: str, payload: bytes, _headers: bytes) -> None:
        push = msgspec.json.decode(payload)
        if push["type"] != "kicked":
            self.pushed.append(
                (int(subject.rsplit(".", maxsplit=1)[-1]), push["type"], push["data"])
            )
            return
        self.kicked.append((subject, push["data"]["session_id"], push["data"]["reason"]))


@asynccontextmanager
async def running(db_url: str, redis_url: str, **env: str) -> AsyncIterator[Service]:
    """`auth`, `profile`, `friend_apply`, `friends`, `presence` on this database, migrated, and this Redis."""
    settings = Settings.load(
        {"IM_DB_URL": db_url, "IM_REDIS_URL": redis_url, "IM_JWT_SECRET": SECRET} | env
    )
    bus = MemoryBus()
    async with AsyncExitStack() as stack:
        # What is tested here uses of the bus only what `shared.bus.Bus` has.
        resources = await stack.enter_async_context(Resources(settings, cast("NatsBus", bus)))
        await upgrade(resources.engine())
        passwords = QuickPasswords()
        stack.callback(passwords.close)
        service = Service(resources, bus, passwords)
        await service.add(functions.auth.function, stack)
        await service.add(functions.profile.function, stack)
        await service.add(functions.friend_apply.function, stack)
        await service.add(functions.friends.function, stack)
        await service.add(functions.presence.function, stack)
        yield service
