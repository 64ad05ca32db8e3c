"""Members come and go while messages flow, over several edge processes: what each device gets, against the log."""

import asyncio
import json
from contextlib import AsyncExitStack

import aiohttp

from clients.python.natterjack import Client
from schemas.groups import CreateGroup, Group, InvitedMembers, InviteMembers, KickMember
from schemas.messages import GetHistory, History
from schemas.types import Empty
from tests.e2e.conftest import Start
from tests.edge import connect
from tests.support import until
from tests.system import PASSWORD, System

MESSAGES = 300


class Watcher:
    """A device that notes the `seq` of all that it is pushed."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.seqs: list[int] = []
        self.events: list[str] = []
        self._task = asyncio.create_task(self._watch(ws))

    async def _watch(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        async for message in ws:
            frame = json.loads(message.data)
            self.events.append(frame["type"])
            if frame["type"] == "message":
                self.seqs.append(frame["data"]["seq"])

    def close(self) -> None:
        self._task.cancel()


async def token_of(system: System, name: str) -> str:
    async with (
        aiohttp.ClientSession() as http,
        http.post(
            f"{system.url}/api/v1/auth/login", json={"username": name, "password": PASSWORD}
        ) as answer,
    ):
        return str((await answer.json())["data"]["access_token"])


async def watching(system: System, name: str, stack: AsyncExitStack) -> Watcher:
    access_token = await token_of(system, name)
    watcher = Watcher((await stack.enter_async_context(connect(system.url, access_token))).ws)
    stack.callback(watcher.close)
    return watcher


async def test_kicked_and_invited_while_messages_flow(both_stacks: Start) -> None:
    async with both_stacks(IM_EDGE_WORKERS="3") as system, AsyncExitStack() as stack:
        names = ("alice", "bob", "carol", "dora")
        clients: list[Client] = [await system.user(name) for name in names]
        for client in clients:
            await stack.enter_async_context(client)
        alice, bob, carol, dora = clients
        group = await alice.request(CreateGroup("flow", [bob.user_id, carol.user_id]), Group)
        gid = group.group_id
        bobs = [await watching(system, "bob", stack) for _ in range(4)]
        carols = [await watching(system, "carol", stack) for _ in range(4)]
        doras = [await watching(system, "dora", stack) for _ in range(4)]

        async def write() -> None:
            for i in range(MESSAGES):
                await alice.send(group=gid, text=f"message {i}")

        writing = asyncio.create_task(write())
        await until(lambda: all(len(w.seqs) > 20 for w in carols))
        await alice.request(KickMember(gid, carol.user_id), Empty)
        await alice.request(InviteMembers(gid, [dora.user_id]), InvitedMembers)
        await writing
        last = (await alice.request(GetHistory(f"g_{gid}", limit=1), History)).max_seq
        for watcher in bobs + doras:
            await until(lambda watcher=watcher: bool(watcher.seqs) and watcher.seqs[-1] == last)  # type: ignore[misc]
        for watcher in bobs:
            assert watcher.seqs == list(range(watcher.seqs[0], last + 1)), "lost or doubled"
        newest = (await carol.request(GetHistory(f"g_{gid}", limit=1), History)).messages[-1]
        assert json.loads(newest.content)["kind"] == "group.kicked"
        for watcher in carols:
            assert watcher.seqs[-1] <= newest.seq < last, "nothing after the border"
            assert "group.left" in watcher.events
        begins = (
            await dora.request(GetHistory(f"g_{gid}", after_seq=1, limit=1), History)
        ).messages
        for watcher in doras:
            assert watcher.events.index("group.joined") >= 0
            assert watcher.seqs[0] >= begins[0].seq, "nothing from before the border"
            assert watcher.seqs == list(range(watcher.seqs[0], last + 1)), "lost or doubled"
