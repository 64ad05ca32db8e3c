"""A server is away for a while, under load: nobody is told something false, and all goes on by itself afterwards."""

import asyncio
import json
import signal
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from clients.python.natterjack import Client
from schemas.messages import GetHistory, History
from tests import servers
from tests.chaos.conftest import FullStack
from tests.chaos.conversation import check, reaches, talk
from tests.system import PASSWORD, System, running

COUNT = 600
NOT_NOW = {"unavailable", "unknown_outcome"}


def post(url: str, body: dict[str, Any], token: str = "") -> Any:
    """The decoded answer, of an error too."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310 - our own
    try:
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
            return json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return json.load(error)


class Prober:
    """A third user, who sends by HTTP and writes down what he is told; nothing repeats for him."""

    def __init__(self, system: System) -> None:
        self._url = f"{system.url}/api/v1"
        self._token = ""
        self._to = 0
        self.told: dict[str, str] = {}
        self.conversation_id = ""

    async def open(self, peer: int) -> None:
        body = {"username": "carol", "password": PASSWORD}
        await asyncio.to_thread(post, f"{self._url}/auth/register", body)
        answer = await asyncio.to_thread(post, f"{self._url}/auth/login", body)
        self._token, self._to = answer["data"]["access_token"], peer
        low, high = sorted((peer, answer["data"]["user"]["user_id"]))
        self.conversation_id = f"p_{low}_{high}"
        await self.send(1)

    async def send(self, count: int) -> set[str]:
        """Sends so many messages at once; returns the codes of the answers."""
        names = [f"c{len(self.told) + i}" for i in range(count)]
        answers = await asyncio.gather(*(self._send(name) for name in names))
        self.told |= dict(zip(names, answers, strict=True))
        return set(answers)

    async def _send(self, name: str) -> str:
        body = {"client_msg_id": name, "receiver_id": self._to, "content": name}
        answer = await asyncio.to_thread(post, f"{self._url}/messages", body, self._token)
        return str(answer["code"])

    async def check(self, system: System) -> None:
        by_code = {
            code: {n for n, c in self.told.items() if c == code} for code in self.told.values()
        }
        assert set(by_code) <= NOT_NOW | {"ok"}
        stored: set[str] = set()
        async with asyncio.timeout(30):
            while not by_code["ok"] <= stored:
                stored = {row["client_msg_id"] for row in await system.rows(self.conversation_id)}
        assert not by_code.get("unavailable", set()) & stored


@pytest.mark.parametrize("away", ["mariadb", "kafka"])
async def test_senders_hear_the_truth_while_a_server_is_away(
    full_stack: FullStack, away: str
) -> None:
    async with full_stack(1) as system:
        prober = Prober(system)
        async with await system.user("dave") as dave:
            await prober.open(dave.user_id)

        async def take_away(acked: Callable[[], int]) -> None:
            await reaches(acked, COUNT // 4)
            system.servers[away].stop()
            codes: set[str] = set()
            while not codes & NOT_NOW:  # what is in the timeline's memory may go on for a moment
                codes |= await prober.send(8)
            codes = await prober.send(8)
            assert codes <= NOT_NOW | {"ok"}
            system.servers[away].start()
            await reaches(acked, COUNT // 2)

        sides = await talk(system, COUNT, take_away)
        async with asyncio.timeout(60):
            while await prober.send(1) != {"ok"}:
                pass
        await prober.check(system)
        await check(system, sides)


async def test_redis_emptied_restarted_away_and_frozen(tmp_path: Path) -> None:
    """Histories agree with SQL all the time, and the cache fills again."""
    with (
        servers.serve("nats-server", servers.nats) as nats,
        servers.serve("redis-server", servers.redis) as redis,
    ):
        parts = {"nats": nats, "redis": redis}
        db_url = f"sqlite+aiosqlite:///{tmp_path / 'im.db'}"
        async with running(tmp_path, parts, db_url, "jetstream://") as system:
            async with await system.user("alice") as alice, await system.user("bob") as bob:
                low, high = sorted((alice.user_id, bob.user_id))
            conversation_id = f"p_{low}_{high}"
            reader = await system.user("alice")

            async def disturb(acked: Callable[[], int]) -> None:
                async with reader:
                    steps = iter(range(COUNT // 8, COUNT, COUNT // 8))
                    await reaches(acked, next(steps))
                    while not await system.rows(conversation_id):
                        pass  # acks come before the COMMIT; without it and without Redis nobody knows of them
                    async with Redis.from_url(redis.url) as client:
                        await client.flushall()
                    await agrees(reader, system, conversation_id)
                    redis.kill()
                    redis.start()
                    await agrees(reader, system, conversation_id)
                    redis.stop()
                    await reaches(acked, min(COUNT, max(acked(), next(steps)) + 20))
                    await agrees(reader, system, conversation_id)
                    redis.start()
                    await reaches(acked, min(COUNT, acked() + 20))
                    redis.signal(signal.SIGSTOP)
                    try:
                        await reaches(acked, min(COUNT, acked() + 20))
                        await agrees(reader, system, conversation_id)
                    finally:
                        redis.signal(signal.SIGCONT)
                    await agrees(reader, system, conversation_id)

            await check(system, await talk(system, COUNT, disturb))
            async with await system.user("alice") as again, Redis.from_url(redis.url) as client:
                newest = (await system.rows(conversation_id))[-1]["seq"]

                async def heals() -> bool:
                    await agrees(again, system, conversation_id)
                    found: Any = await client.zrevrange(
                        f"im:hot:{conversation_id}", 0, 49, withscores=True
                    )
                    return [int(entry[1]) for entry in found] == list(
                        range(newest, newest - 50, -1)
                    )

                async with asyncio.timeout(30):
                    while not await heals():
                        pass
                hits = (await client.info("stats"))["keyspace_hits"]
                await agrees(again, system, conversation_id)
                assert (await client.info("stats"))["keyspace_hits"] > hits


async def agrees(client: Client, system: System, conversation_id: str) -> None:
    """The newest page shows what SQL has, and maybe more that came meanwhile."""
    before = await system.rows(conversation_id)
    page = await client.request(GetHistory(conversation_id), History)
    after = {row["seq"]: row["msg_id"] for row in await system.rows(conversation_id)}
    shown = [(m.seq, m.msg_id) for m in page.messages]
    assert [seq for seq, _ in shown] == list(range(shown[0][0], shown[-1][0] + 1))
    assert shown[-1][0] >= before[-1]["seq"]
    assert all(after.get(seq, msg_id) == msg_id for seq, msg_id in shown)
