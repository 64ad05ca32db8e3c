"""Functions as Knative starts them: PORT, K_SERVICE, K_REVISION, nothing writable but /tmp, SIGTERM under load."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from clients.python.natterjack.errors import ApiError
from functions.__main__ import registry
from laptop.ports import free_ports
from schemas.messages import GetHistory, History, SendMessage
from schemas.users import GetUser, User
from shared import cloudevents
from shared.adapters.jetstream import call
from shared.adapters.nats import NatsBus
from shared.bus import Inbox
from shared.cloudevents import JSON, Event
from shared.hosts.check import missing
from shared.ids import now_ms, random_token
from tests import servers
from tests.bridged import bridged
from tests.e2e.conftest import Start
from tests.knative import Pod
from tests.support import until
from tests.system import ROOT, System


async def post(pod: Pod, user: int, command: str, data: object) -> Event:
    """The reply to a command, as Knative would post it."""
    event = Event(
        id=random_token(),
        source="/tests",
        type=f"im.v1.cmd.{command}",
        subject=str(user),
        content_type=JSON,
        data=msgspec.json.encode(data),
        extensions={"imdeadline": str(now_ms() + 20_000)},
    )
    headers, body = cloudevents.write(event)
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{pod.url}/", data=body, headers=headers) as response,
    ):
        assert response.status == 200
        return cloudevents.read(response.headers, await response.read())[0]


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


FIRST: dict[str, tuple[int, str, dict[str, Any], str]] = {
    "auth": (0, "auth.login", {"username": "nobody", "password": "x"}, "unauthenticated"),
    "friend_apply": (1, "friend.accept", {"id": 999}, "not_found"),
    "friends": (1, "friend.delete", {"id": 999}, "unauthenticated"),  # nobody is user 1
    "groups": (1, "group.get", {"id": 999}, "not_found"),
    "history": (1, "message.history", {"conversation_id": "p_7_9"}, "forbidden"),
    "presence": (1, "typing.send", {}, "bad_request"),
    "profile": (1, "user.get", {"id": 999}, "not_found"),
    "read": (1, "message.read", {"conversation_id": "p_7_9", "seq": 1}, "forbidden"),
    "recall": (1, "message.recall", {"msg_id": "999"}, "not_found"),
    "send": (1, "message.send", {"client_msg_id": "a", "content": "b"}, "bad_request"),
}
READERS = {"facts", "search_index", "timeline"}


def test_every_function_is_started_here() -> None:
    assert {*registry()} == {*FIRST, *READERS}


@pytest.mark.parametrize("name", FIRST)
async def test_each_function_answers_and_ends(
    system: System, tmp_path: Path, http: aiohttp.ClientSession, name: str
) -> None:
    pod = Pod(name, 1, system.env, tmp_path / "pod.log")
    await pod.ready(http)
    async with http.get(f"{pod.url}/healthz") as response:
        assert response.status == 200
    user, command, data, code = FIRST[name]
    reply = await post(pod, user, command, data)
    assert reply.type == f"im.v1.error.{command}"
    assert reply.source == f"/natterjack/functions/{name}"
    assert json.loads(reply.data)["code"] == code
    assert await pod.stop() == 0
    log = [json.loads(line) for line in pod.log.read_text().splitlines()]
    assert [entry["level"] for entry in log if entry["level"] != "info"] == []


@pytest.mark.parametrize("name", sorted(READERS))
async def test_a_reader_has_probes_and_ends(
    system: System, tmp_path: Path, http: aiohttp.ClientSession, name: str
) -> None:
    running = "timeline-1" if name == "timeline" else "functions"
    await asyncio.to_thread(system.processes[running].stop)  # a JetStream has one reader
    pod = Pod(name, 1, system.env | {"IM_HOST": "both"}, tmp_path / "pod.log")
    await pod.ready(http)
    assert await missing(system.servers["nats"].url, [name]) == []
    assert await pod.stop() == 0, pod.log.read_text()
    log = [json.loads(line) for line in pod.log.read_text().splitlines()]
    assert [entry["level"] for entry in log if entry["level"] != "info"] == []


async def test_the_answer_of_the_timeline_is_waited_for_through_sigterm(
    system: System, tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with await system.user("ann") as ann, await system.user("ben") as ben:
        pod = Pod("send", 1, system.env, tmp_path / "pod.log")
        await pod.ready(http)
        message = SendMessage("one", "hello", receiver_id=ben.user_id)
        reply = await post(pod, ann.user_id, "message.send", message)
        assert reply.type == "im.v1.ack.message.send"
        assert json.loads(reply.data)["seq"] == 1
        # Nobody numbers the next one until the function has been told to end.
        await asyncio.to_thread(system.processes["timeline-1"].stop)
        message = SendMessage("two", "hello", receiver_id=ben.user_id)
        asking = asyncio.create_task(post(pod, ann.user_id, "message.send", message))
        await appended(system, 2)
        stopping = asyncio.create_task(pod.stop())
        await until(lambda: refuses(pod.port))
        assert not asking.done()
        system.add("timeline-1", ["functions", "timeline"])
        assert json.loads((await asking).data)["seq"] == 2
        assert await stopping == 0


async def test_messages_on_both_stacks(
    both_stacks: Start, tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with (
        both_stacks() as system,
        await system.user("ann") as ann,
        await system.user("ben") as ben,
    ):
        pod = Pod("send", 1, system.env, tmp_path / "pod.log")
        await pod.ready(http)
        # The first records open the log.
        messages = [SendMessage(f"m{i}", "hello", receiver_id=ben.user_id) for i in range(20)]
        replies = await asyncio.gather(
            *(post(pod, ann.user_id, "message.send", message) for message in messages)
        )
        assert sorted(json.loads(reply.data)["seq"] for reply in replies) == list(range(1, 21))
        again = await post(pod, ann.user_id, "message.send", messages[0])
        assert json.loads(again.data) == json.loads(replies[0].data)
        assert await pod.stop() == 0


async def appended(system: System, count: int) -> None:
    """Returns when the log holds so many requests."""
    bus = await NatsBus.open(system.servers["nats"].url, "test")
    inbox = Inbox(bus)
    async with asyncio.timeout(20):
        while (await call(inbox, "STREAM.INFO.IM_REQUESTS")).state["messages"] < count:
            await asyncio.sleep(0.02)
    inbox.close()
    await bus.close()


def refuses(port: int) -> bool:
    """Whether nobody takes connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


async def test_without_nats_it_lives_but_is_not_ready(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    env = {**os.environ, "IM_NATS_URL": f"nats://127.0.0.1:{free_ports(1)[0]}"}
    pod = Pod("profile", 1, env, tmp_path / "pod.log")
    await until(lambda: not refuses(pod.port))
    async with http.get(f"{pod.url}/healthz") as response:
        assert response.status == 200
    async with http.get(f"{pod.url}/readyz") as response:
        assert response.status == 503
    async with http.post(f"{pod.url}/", data=b"{}") as response:
        assert (response.status, (await response.json())["code"]) == (503, "unavailable")
    assert await pod.stop() == 0


async def test_hot_functions_have_both_faces(
    system: System, tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    await asyncio.to_thread(system.processes["functions"].stop)
    pod = Pod("history", 1, system.env | {"IM_HOST": "both"}, tmp_path / "pod.log")
    await pod.ready(http)
    assert await missing(system.servers["nats"].url, ["history"]) == []
    reply = await post(pod, 1, "message.history", {"conversation_id": "p_7_9"})
    assert json.loads(reply.data)["code"] == "forbidden"
    assert await pod.stop() == 0


async def test_a_scale_from_zero_is_within_the_dead_line(tmp_path: Path) -> None:
    with (
        servers.serve("nats-server", servers.nats) as nats,
        servers.serve("redis-server", servers.redis) as redis,
    ):
        async with bridged(tmp_path, nats, redis, ("profile", "history")) as world:
            profile = world.activators["profile"]
            async with await world.system.user("ann") as ann:
                assert not profile.running
                # Over the WebSocket, for which the edge holds the dead line.
                user = await ann.request(GetUser(ann.user_id), User)
                assert user.username == "ann"
                assert profile.cold_starts == 1
                with pytest.raises(ApiError, match="no user"):
                    await ann.request(GetUser(999), User)
                await profile.scale_to_zero()
                answers = await asyncio.gather(
                    *(ann.request(GetUser(ann.user_id), User) for _ in range(50))
                )
                assert all(answer == user for answer in answers)
                assert profile.cold_starts == 2
                page = await ann.request(GetHistory(f"p_{ann.user_id}_{ann.user_id + 1}"), History)
                assert page.messages == []
            assert profile.statuses == [0]


@pytest.mark.parametrize(
    ("arguments", "env", "complaint"),
    [
        (["shared.hosts.bridge", "profile"], {"IM_NATS_URL": "nats://127.0.0.1:1"}, "K_SINK"),
        (["shared.hosts.bridge", "profile"], {"K_SINK": "http://127.0.0.1:1"}, "IM_NATS_URL"),
        (["shared.hosts.bridge", "profile"], {"K_SINK": "ftp://a"}, "K_SINK"),
        (["shared.hosts.bridge", "translate"], {"K_SINK": "http://a"}, "IM_FACTS"),
        (["shared.hosts.bridge", "translate"], {"IM_FACTS": "sent"}, "IM_FACTS"),
        (["shared.hosts.bridge", "profile"], {"K_CE_OVERRIDES": "x"}, "K_CE_OVERRIDES"),
        (["shared.hosts.bridge", "a.b"], {}, "a.b"),
        (["functions", "profile"], {"PORT": "http"}, "PORT"),
        (["functions", "profile"], {"IM_HOST": "https"}, "IM_HOST"),
    ],
)
def test_a_wrong_setting_is_one_line(
    arguments: list[str], env: dict[str, str], complaint: str
) -> None:
    command = [sys.executable, "-m", *arguments]
    ended = subprocess.run(
        command,
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], **env},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 2
    assert complaint in ended.stderr.splitlines()[-1]


def test_a_port_that_is_taken_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ended = subprocess.run(
            [sys.executable, "-m", "functions", "profile"],
            env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "PORT": port},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert ended.returncode == 2
    assert f"PORT: cannot listen on {port}" in ended.stderr
