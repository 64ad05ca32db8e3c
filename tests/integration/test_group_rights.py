"""Every right of the table, for every role and target, over HTTP and over WebSocket: the answer is what the table says.

A real edge, NATS, Redis and SQL; the log is in memory, and answers at once what the timeline would answer later.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from itertools import count, product
from pathlib import Path
from typing import NamedTuple

import aiohttp
import msgspec
import pytest
from sqlalchemy import insert

import functions.auth
import functions.groups
import functions.recall
import functions.send
from migrations.schema import upgrade
from schemas.commands import API_PREFIX, BY_TYPE
from schemas.records import AnyRequest, SystemRequested
from schemas.rights import RIGHTS, Action, Role, allowed
from shared import tables
from shared.adapters.memory_log import MemoryLog
from shared.adapters.nats import NatsBus
from shared.hosts.nats import Host
from shared.ids import created_at, month_of, now_ms, snowflake
from shared.resources import Resources
from shared.settings import Settings
from tests.edge import SECRET, Client, EdgeProcess, connect, token
from tests.servers import NatsServer, RedisServer

ACTORS = {Role.MEMBER: 1, Role.ADMIN: 2, Role.OWNER: 3, None: 4}
"""User by role; None: no member."""
TARGETS = {Role.MEMBER: 5, Role.ADMIN: 6, Role.OWNER: 3}
SOMEBODY = 7

Ask = Callable[[int, str, dict[str, object]], Awaitable[str]]
"""(user, command, data) → "ok" or the error's code."""


class Case(NamedTuple):
    """One cell of the table."""

    action: Action
    actor: Role | None
    target: Role | None

    def expected(self) -> str:
        """What is heard."""
        if self.actor is None:
            # Who is not in does not even learn that there is such a message.
            return "not_found" if self.action in ("pin", "recall") else "not_member"
        if allowed(self.action, self.actor, self.target):
            return "ok"
        return "muted" if self.action == "write_muted" else "forbidden"


def cases() -> list[Case]:
    """All of them: role by role, where it is a right over somebody also target by target."""
    found: list[Case] = []
    for action, right in RIGHTS.items():
        over_somebody = not all(isinstance(r, bool) for r in right[1:])
        targets = tuple(TARGETS) if over_somebody else (None,)
        found += [
            Case(action, actor, target)
            for actor, target in product(ACTORS, targets)
            if not actor is target is Role.OWNER  # there is only one
        ]
    return found


class AnsweringLog(MemoryLog):
    """Gives the answer to each record at once, in the timeline's place."""

    def __init__(self, bus: NatsBus) -> None:
        super().__init__(8)
        self._bus = bus

    def append(
        self, topic: str, key: str, value: bytes, *, trace: str = ""
    ) -> "asyncio.Future[None]":
        request = msgspec.json.decode(value, type=AnyRequest)
        answer = b"{}"
        if isinstance(request, SystemRequested) and isinstance(request.answer, msgspec.Raw):
            answer = bytes(request.answer)
        self._bus.send(request.reply, answer)
        return super().append(topic, key, value, trace=trace)


class Stage:
    """Makes a group for each case, with one user of each role to act and one to be acted upon."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._numbers = count(1)

    async def set(self, case: Case) -> tuple[str, dict[str, object]]:
        """The command with its data that tries the right."""
        group_id = next(self._numbers)
        actor, target = ACTORS[case.actor], TARGETS.get(case.target or Role.MEMBER, 0)
        members = {1: 0, 2: 1, 3: 2, 5: 0, 6: 1}
        now = now_ms()
        month = month_of(now)
        message = {
            "id": snowflake(now, 1, group_id),
            "msg_id": str(snowflake(now, 1, group_id)),
            "conversation_id": f"g_{group_id}",
            "sender_id": target,
            "group_id": group_id,
            "msg_type": 1,
            "content": "x",
            "status": 0,
            "created_at": created_at(now),
            "seq": 1,
            "rev": 0,
            "client_msg_id": "c",
        }
        row = {
            "id": group_id,
            "name": "g",
            "owner_id": 3,
            "created_at": created_at(now),
            "announcement": "",
            "join_mode": "open" if case.action == "invite_open" else "approval",
            "past": "hidden",
            "mute_all": int(case.action == "write_muted"),
            "member_count": len(members),
            "version": 1,
            "members_version": 1,
            "created_ms": now,
            "changed_ms": now,
        }
        seats = [
            {
                "group_id": group_id,
                "user_id": user_id,
                "role": role,
                "joined_at": created_at(now),
                "joined_ms": now,
            }
            for user_id, role in members.items()
        ]
        async with self._resources.engine().begin() as connection:
            await connection.execute(insert(tables.group), row)
            await connection.execute(insert(tables.group_member), seats)
            await connection.execute(insert(tables.message_table(month)), message)
        msg_id = message["msg_id"]
        group: dict[str, object] = {"id": group_id}
        over: dict[str, object] = {"id": group_id, "uid": target}
        send: dict[str, object] = {"group_id": group_id, "client_msg_id": "c1", "content": "x"}
        tries: dict[Action, tuple[str, dict[str, object]]] = {
            "read": ("group.members", {**group}),
            "write": ("message.send", {**send}),
            "write_muted": ("message.send", {**send}),
            "pin": ("message.pin", {"msg_id": msg_id}),
            "recall": ("message.recall", {"msg_id": msg_id}),
            "edit": ("group.update", group | {"name": "new", "announcement": "new"}),
            "configure": ("group.update", group | {"max_members": 10, "join": "invite"}),
            "invite_open": ("group.invite", group | {"user_ids": [SOMEBODY]}),
            "invite_closed": ("group.invite", group | {"user_ids": [SOMEBODY]}),
            "approve": ("group.applications", {**group}),
            "kick": ("group.kick", {**over}),
            "mute": ("group.mute", over | {"until": now + 60_000}),
            "mute_all": ("group.mute_all", group | {"on": True}),
            "rename_self": ("group.nickname", {"id": group_id, "uid": actor, "nickname": "n"}),
            "rename": ("group.nickname", over | {"nickname": "n"}),
            "role": ("group.role", over | {"role": int(not case.target)}),
            "transfer": ("group.transfer", group | {"user_id": target}),
            "leave": ("group.leave", {**group}),
            "dissolve": ("group.dissolve", {**group}),
        }
        assert tries.keys() == RIGHTS.keys()
        return tries[case.action]


@pytest.fixture
async def stage(
    nats_server: NatsServer, redis_server: RedisServer, tmp_path: Path
) -> AsyncIterator[Stage]:
    settings = Settings.load(
        {
            "IM_NATS_URL": nats_server.url,
            "IM_REDIS_URL": redis_server.url,
            "IM_DB_URL": f"sqlite+aiosqlite:///{tmp_path / 'im.db'}",
            "IM_JWT_SECRET": SECRET,
            "IM_RATE_LIMITS": "off",
        }
    )
    async with AsyncExitStack() as stack:
        bus = await NatsBus.open(nats_server.url, "test")
        stack.push_async_callback(bus.close)
        resources = await stack.enter_async_context(Resources(settings, bus))
        resources._writer = log = AnsweringLog(bus)
        await upgrade(resources.engine())
        await resources.redis().flushdb()
        names = ("username", "username_key", "nickname", "nickname_key")
        async with resources.engine().begin() as connection:
            users = [
                {"password_hash": "", "created_ms": 0, **dict.fromkeys(names, f"u{i}")}
                for i in range(SOMEBODY)
            ]
            await connection.execute(insert(tables.user), users)
        host = Host(bus, writer=log)
        for function in (
            functions.auth.function,
            functions.groups.function,
            functions.send.function,
            functions.recall.function,
        ):
            deps = await stack.enter_async_context(function.lifespan(resources))
            await host.serve(function, deps)
        yield Stage(resources)
        await host.drain(5)


@pytest.fixture(params=["http", "ws"])
async def ask(
    request: pytest.FixtureRequest, nats_server: NatsServer, stage: Stage
) -> AsyncIterator[Ask]:
    with EdgeProcess(nats_server.url) as edge:
        await asyncio.to_thread(edge.wait_until_ready)
        async with AsyncExitStack() as stack:
            if request.param == "http":
                http = await stack.enter_async_context(aiohttp.ClientSession(edge.url))
                yield over_http(http)
            else:
                sockets = {
                    user: await stack.enter_async_context(connect(edge.url, token(user)))
                    for user in ACTORS.values()
                }
                yield over_ws(sockets)


def over_http(http: aiohttp.ClientSession) -> Ask:
    async def ask(user: int, command: str, data: dict[str, object]) -> str:
        route = BY_TYPE[command].route
        assert route is not None
        path = API_PREFIX + route.path.format_map(data)
        body = {k: v for k, v in data.items() if f"{{{k}}}" not in route.path}
        headers = {"Authorization": f"Bearer {token(user)}"}
        async with http.request(route.method, path, headers=headers, json=body or None) as answer:
            return str((await answer.json())["code"])

    return ask


def over_ws(sockets: dict[int, Client]) -> Ask:
    numbers = count()

    async def ask(user: int, command: str, data: dict[str, object]) -> str:
        number = next(numbers)
        await sockets[user].ws.send_json({"type": command, "id": number, "data": data})
        while True:
            frame = await sockets[user].next()
            if frame.get("id") == number:
                return "ok" if frame["type"] == "ack" else str(frame["code"])

    return ask


async def test_every_right(ask: Ask, stage: Stage) -> None:
    heard, expected = {}, {}
    for case in cases():
        command, data = await stage.set(case)
        heard[case] = await ask(ACTORS[case.actor], command, data)
        expected[case] = case.expected()
    wrong = {case: (heard[case], expected[case]) for case in heard if heard[case] != expected[case]}
    assert not wrong
    assert len(heard) > 100
