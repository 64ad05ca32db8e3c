"""Life and death of the edge's processes."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator

import aiohttp
import psutil
import pytest

from shared import subjects
from shared.adapters.nats import NatsBus
from tests.edge import SECRET, EdgeProcess, connect, token
from tests.servers import NatsServer
from tests.support import until


@pytest.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[NatsBus]:
    bus = await NatsBus.open(nats_server.url, "test")
    yield bus
    await bus.close()


async def started(nats_url: str, **env: str) -> EdgeProcess:
    return await asyncio.to_thread(EdgeProcess(nats_url, **env).wait_until_ready)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_sigterm_answers_what_is_under_way(
    nats_server: NatsServer, bus: NatsBus, workers: str
) -> None:
    asked: asyncio.Queue[str] = asyncio.Queue()
    bus.listen(subjects.commands_of("user.me"), lambda _s, reply, *_: asked.put_nowait(reply))
    await bus.flush()
    with await started(nats_server.url, IM_EDGE_WORKERS=workers) as edge:
        async with (
            connect(edge.url) as client,
            connect(edge.url) as idle,
            aiohttp.ClientSession() as http,
        ):
            await client.ws.send_str('{"type":"user.me","id":1}')
            headers = {"Authorization": f"Bearer {token()}"}
            by_http = asyncio.create_task(http.get(edge.url + "/api/v1/users/me", headers=headers))
            replies = [await asked.get(), await asked.get()]
            edge.terminate()
            assert await client.next() == {"type": "draining", "data": {}}
            assert await idle.next() == {"type": "draining", "data": {}}
            if workers == "1":
                assert await asyncio.to_thread(edge.status, "/readyz") == 503
                assert await asyncio.to_thread(edge.status, "/healthz") == 200
                late = await client.ask('{"type":"user.me","id":2}')
                assert (late["code"], late["id"]) == ("unavailable", 2)
                with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
                    await http.ws_connect(f"{edge.url}/ws?token={token()}")
            for reply in replies:
                bus.send(reply, b'{"done":true}')
            assert await client.next() == {"type": "ack", "id": 1, "data": {"done": True}}
            response = await by_http
            assert (response.status, (await response.json())["data"]) == (200, {"done": True})
            assert await client.close_code() == 1012
            assert await idle.close_code() == 1012
            assert await edge.ended() == 0


async def test_a_second_sigterm_ends_at_once(nats_server: NatsServer, bus: NatsBus) -> None:
    bus.listen(subjects.commands_of("user.me"), lambda *_: None)
    await bus.flush()
    with await started(nats_server.url) as edge:
        async with connect(edge.url) as client:
            await client.ws.send_str('{"type":"user.me","id":1}')
            edge.terminate()
            assert (await client.next())["type"] == "draining"
            edge.terminate()
            assert await edge.ended() == 1


async def test_a_connection_that_says_nothing_holds_nothing_up(nats_server: NatsServer) -> None:
    with await started(nats_server.url) as edge:
        _, silent = await asyncio.open_connection("127.0.0.1", edge.port)
        assert await asyncio.to_thread(edge.status, "/healthz") == 200, "it was accepted before"
        edge.terminate()
        assert await edge.ended() == 0
        silent.close()


async def test_a_signal_to_the_whole_group_drains_too(nats_server: NatsServer) -> None:
    """As a terminal and many supervisors send it: to the workers as well."""
    with await started(nats_server.url, IM_EDGE_WORKERS="2") as edge:
        async with connect(edge.url) as client:
            for worker in psutil.Process(edge.process.pid).children():
                worker.terminate()
            edge.terminate()
            assert (await client.next())["type"] == "draining"
            assert await client.close_code() == 1012
            assert await edge.ended() == 0


async def test_after_nats_was_away_clients_resync_and_live_on(nats_server: NatsServer) -> None:
    with await started(nats_server.url) as edge:
        async with connect(edge.url) as client:
            nats_server.kill()
            try:
                await until(lambda: edge.status("/readyz") == 503)
                error = await client.ask('{"type":"user.me","id":1}')
                assert (error["code"], error["id"]) == ("unavailable", 1)
                async with connect(edge.url, token(8), ready=False) as waiting:
                    await waiting.alive()
                    nats_server.start()
                    ready = await waiting.next()
                    assert (ready["type"], ready["data"]["user_id"]) == ("ready", 8)
                    assert await client.next() == {"type": "resync", "data": {}}
                    bus = await NatsBus.open(nats_server.url, "test")
                    for user_id, member in ((7, client), (8, waiting)):
                        bus.send(subjects.user(user_id), b'{"type":"message","data":{}}')
                        assert (await member.next())["type"] == "message"
                    await bus.close()
            finally:
                if not nats_server.pid:
                    nats_server.start()


async def test_it_lives_before_nats_does(nats_server: NatsServer) -> None:
    nats_server.stop()
    try:
        with EdgeProcess(nats_server.url) as edge:
            await until(lambda: edge.status("/healthz") == 200)
            assert edge.status("/readyz") == 503
            assert edge.status("/api/v1/users/me") == 401
            nats_server.start()
            await asyncio.to_thread(edge.wait_until_ready)
            edge.terminate()
            assert await edge.ended() == 0
    finally:
        if not nats_server.pid:
            nats_server.start()


async def test_metrics_of_two_workers(nats_server: NatsServer, bus: NatsBus) -> None:
    bus.listen(subjects.commands_of("user.me"), lambda _s, reply, *_: bus.send(reply, b"{}"))
    await bus.flush()
    with await started(nats_server.url, IM_EDGE_WORKERS="2") as edge:
        pid = edge.process.pid
        assert len(psutil.Process(pid).children()) == 2
        clients = [connect(edge.url) for _ in range(20)]
        for client in clients:
            await (await client.__aenter__()).ask('{"type":"user.me","id":1}')

        wanted = {
            "im_edge_connections 20.0",
            'im_edge_commands_total{code="ok",type="user.me"} 20.0',
            'im_edge_command_seconds_count{type="user.me"} 20.0',
        }
        async with aiohttp.ClientSession() as http, asyncio.timeout(20):
            while True:
                async with http.get(edge.url + "/metrics") as response:
                    assert response.content_type == "text/plain"
                    if wanted <= set((await response.text()).splitlines()):
                        break
                await asyncio.sleep(0.05)
        for client in clients:
            await client.__aexit__(None, None, None)


async def test_a_dead_worker_is_started_again(nats_server: NatsServer) -> None:
    with await started(nats_server.url, IM_EDGE_WORKERS="2") as edge:
        supervisor = psutil.Process(edge.process.pid)
        dead = supervisor.children()[0]
        dead.kill()
        await until(lambda: len([c for c in supervisor.children() if c.pid != dead.pid]) == 2)
        await asyncio.to_thread(edge.wait_until_ready)
        edge.terminate()
        assert await edge.ended() == 0


async def test_workers_end_with_their_supervisor(nats_server: NatsServer) -> None:
    with await started(nats_server.url, IM_EDGE_WORKERS="2") as edge:
        workers = psutil.Process(edge.process.pid).children()
        edge.process.kill()
        await edge.ended()
        await until(lambda: not any(w.is_running() for w in workers))


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({"IM_NATS_URL": ""}, "IM_NATS_URL is not set"),
        ({"IM_NATS_URL": "http://x"}, "IM_NATS_URL"),
        ({"IM_JWT_SECRET": ""}, "IM_JWT_SECRET"),
        ({"IM_JWT_SECRET": "short"}, "IM_JWT_SECRET"),
        ({"IM_JWT_KEYS": "{}"}, "IM_JWT_KEYS"),
        ({"IM_JWT_KEYS": "/does/not/exist"}, "IM_JWT_KEYS"),
        ({"IM_EDGE_WORKERS": "0"}, "IM_EDGE_WORKERS"),
        ({"IM_EDGE_HOST": "not a host"}, "IM_EDGE_HOST"),
    ],
)
async def test_wrong_settings_are_one_line(env: dict[str, str], says: str) -> None:
    with EdgeProcess("nats://127.0.0.1:1", **env) as edge:
        assert await edge.ended() == 2
        stderr = edge.stderr()
        assert says in stderr
        assert len(stderr.splitlines()) == 1
        assert SECRET not in stderr


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_port_in_use_is_one_line(nats_server: NatsServer, workers: str) -> None:
    with await started(nats_server.url, IM_EDGE_WORKERS=workers) as first:
        env = {"IM_EDGE_PORT": str(first.port), "IM_EDGE_WORKERS": workers}
        with EdgeProcess(nats_server.url, **env) as second:
            assert await second.ended() == 2
            assert str(first.port) in second.stderr()


async def test_tokens_are_not_logged(nats_server: NatsServer) -> None:
    secret = token()
    with await started(nats_server.url, IM_LOG_LEVEL="debug") as edge:
        async with connect(edge.url, secret) as client:
            await client.alive()
        async with connect(edge.url, "", ready=False) as client:
            await client.ask(json.dumps({"type": "auth", "data": {"token": secret}}))
        edge.terminate()
        assert await edge.ended() == 0
        assert secret not in edge.stderr()


async def test_what_clients_break_is_not_logged(nats_server: NatsServer) -> None:
    half = b"Content-Length: 50\r\n\r\n{"
    no_gzip = b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"
    with EdgeProcess(nats_server.url) as edge:
        edge.wait_until_ready()
        for body in (half, no_gzip):
            _, writer = await asyncio.open_connection("127.0.0.1", edge.port)
            writer.write(b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\n" + body)
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        assert edge.status("/healthz") == 200
        edge.terminate()
        assert await edge.ended() == 0
        assert "Traceback" not in edge.stderr()


def test_ctrl_c(nats_server: NatsServer) -> None:
    with EdgeProcess(nats_server.url) as edge:
        edge.wait_until_ready()
        os.kill(edge.process.pid, signal.SIGINT)
        assert edge.process.wait(20) == 0
