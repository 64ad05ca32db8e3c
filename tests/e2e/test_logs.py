"""What all processes log while everything goes wrong: JSON lines, the trace of a command, and no secrets."""

import asyncio
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import aiohttp
from sqlalchemy import text

from clients.python.natterjack import Client
from shared.adapters.log import open_log_writer
from shared.adapters.nats import NatsBus
from shared.adapters.sql import open_engine
from shared.log import REQUESTS
from shared.settings import Settings
from tests.e2e.conftest import Start
from tests.support import until
from tests.system import PASSWORD, SECRET, System

CONTENT = "zebra-content-4711"
TOKEN = "zebra-token-4711"
WRONG = "zebra-password-4711"


async def test_no_log_ever_holds_a_secret_or_a_content(both_stacks: Start, tmp_path: Path) -> None:
    # debug: the most that can be asked for.
    async with both_stacks(IM_LOG_LEVEL="debug") as system:
        tokens = await rejected_over_http(system)
        await rejected_over_websocket(system)
        await rubbish_at_the_parser(system)
        async with await system.user("alice") as alice, await system.user("bob") as bob:
            peer = bob.user_id
            conversation_id = (await alice.send(peer=peer, text=CONTENT)).conversation_id
            await until(lambda: logged(tmp_path, "timeline-1"))
            await on_the_bus_and_in_the_log(system, alice.user_id, conversation_id)
            await while_servers_are_away(system, tmp_path, alice, peer)
            await where_another_row_stands(system, tmp_path, alice, peer, conversation_id)
            trace_id = await on_a_defect(system, conversation_id)
    lines = logged(tmp_path, "*")
    for never in (CONTENT, TOKEN, WRONG, PASSWORD, SECRET, *tokens):
        assert [line for line in lines if never in line] == []
    entries = [json.loads(line) for line in lines if line.startswith("{")]
    assert {"edge", "functions", "timeline"} <= {entry["service"] for entry in entries}
    [defect] = [entry for entry in entries if entry["message"] == "message.history failed"]
    assert defect["trace_id"] == trace_id
    assert "Traceback" in defect["error"]


def logged(folder: Path, process: str) -> list[str]:
    """All that processes have written so far, also before they were started again."""
    files = [path for path in folder.glob(f"{process}.log*") if path.is_file()]
    return [line for path in files for line in path.read_text().splitlines()]


async def http(
    system: System, path: str, body: object = None, **headers: str
) -> tuple[int, dict[str, Any]]:
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    request = urllib.request.Request(f"{system.url}{path}", data, headers)  # noqa: S310 - our own

    def ask() -> tuple[int, dict[str, Any]]:
        try:
            with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    return await asyncio.to_thread(ask)


async def rejected_over_http(system: System) -> list[str]:
    """Wrong passwords and tokens, broken JSON, a refresh token used twice. Returns real tokens."""
    account = {"username": "carol", "password": PASSWORD}
    assert (await http(system, "/api/v1/auth/register", account))[0] == 201
    assert (await http(system, "/api/v1/auth/register", account))[0] == 409
    wrong = {"username": "carol", "password": WRONG}
    assert (await http(system, "/api/v1/auth/login", wrong))[0] == 401
    assert (await http(system, "/api/v1/auth/login", wrong | {"platform": 1}))[0] == 400
    assert (await http(system, "/api/v1/auth/login", f'{{"password":"{WRONG}'.encode()))[0] == 400
    assert (await http(system, "/api/v1/auth/refresh", {"refresh_token": TOKEN}))[0] == 401
    status, _ = await http(system, "/api/v1/users/me", None, Authorization=f"Bearer {TOKEN}")
    assert status == 401
    answer = (await http(system, "/api/v1/auth/login", account))[1]["data"]
    first = {"refresh_token": answer["refresh_token"]}
    second = (await http(system, "/api/v1/auth/refresh", first))[1]["data"]
    third = {"refresh_token": second["refresh_token"]}
    assert (await http(system, "/api/v1/auth/refresh", third))[0] == 200
    assert (await http(system, "/api/v1/auth/refresh", first))[0] == 401  # stolen
    own = {"Authorization": f"Bearer {answer['access_token']}"}
    long = {"client_msg_id": "1", "receiver_id": 1, "content": CONTENT * 2_000}
    assert (await http(system, "/api/v1/messages", long, **own))[0] in (400, 401)
    return [t["access_token"] for t in (answer, second)] + [
        t["refresh_token"] for t in (answer, second)
    ]


async def rejected_over_websocket(system: System) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(f"{system.url}/ws", params={"token": TOKEN}) as ws:
            await ended(ws)
        for frame in (
            f'{{"type":"auth","data":{{"token":"{TOKEN}"}}}}',
            f'{{"type":"auth","data":{{"token":"{TOKEN}',
            CONTENT * 10_000,
        ):
            async with session.ws_connect(f"{system.url}/ws") as ws:
                await ws.send_str(frame)
                await ws.close()


async def ended(ws: aiohttp.ClientWebSocketResponse) -> None:
    while not ws.closed:
        await ws.receive(timeout=20)


async def rubbish_at_the_parser(system: System) -> None:
    """What is no HTTP, each with a token where the parser stumbles."""
    port = int(system.url.rpartition(":")[2])
    for rubbish in (
        f"GET /ws?token={TOKEN} HTTP/9.9\r\n\r\n",
        f"GET /ws?token={TOKEN}\x00 HTTP/1.1\r\n\r\n",
        f"{TOKEN}\r\n\r\n",
        f"GET /readyz HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\x00\r\n\r\n",
        f"GET /readyz HTTP/1.1\r\nAuthorization {TOKEN}\r\n\r\n",
        f"GET /readyz HTTP/1.1\r\nAuthorization: Bearer {TOKEN * 10_000}\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(rubbish.encode())
        writer.write_eof()
        await reader.read()
        writer.close()


async def on_the_bus_and_in_the_log(system: System, user_id: int, conversation_id: str) -> None:
    """Commands and records that no function of ours would write."""
    settings = Settings.load(system.env)
    bus = await NatsBus.open(settings.nats_url, "test")
    try:
        bus.send(f"im.v1.cmd.{user_id}.message.send", f'{{"content":"{CONTENT}'.encode())
        bus.send(f"im.v1.cmd.{user_id}.message.send", CONTENT.encode(), "im.v1.user.1")
        async with open_log_writer(settings, bus) as writer:
            for record in (
                CONTENT.encode(),
                json.dumps({"type": "message.send", "content": CONTENT}).encode(),
                json.dumps(
                    {
                        "type": "message.send",
                        "conversation_id": conversation_id,
                        "user_id": user_id,
                        "at": 0,
                        "client_msg_id": "1",
                        "msg_type": 1,
                        "content": CONTENT * 10_000,
                    }
                ).encode(),
            ):
                await writer.append(REQUESTS, conversation_id, record)
    finally:
        await bus.close()


async def while_servers_are_away(system: System, folder: Path, sender: Client, peer: int) -> None:
    """SQL lacks a column, then a table; Redis and the log are restarted, while commands come."""
    account = {"username": "dave", "password": PASSWORD, "nickname": CONTENT}
    await execute(system, "ALTER TABLE user RENAME COLUMN nickname_key TO gone")
    assert (await http(system, "/api/v1/auth/register", account))[0] >= 500
    await execute(system, "ALTER TABLE user RENAME COLUMN gone TO nickname_key")
    await execute(system, "ALTER TABLE message_key RENAME TO message_key_gone")
    waiting = asyncio.create_task(sender.send(peer=peer, text=CONTENT))
    await until(lambda: any("waiting" in line for line in logged(folder, "timeline-1")))
    await execute(system, "ALTER TABLE message_key_gone RENAME TO message_key")
    await waiting
    system.kill("redis")
    await sender.send(peer=peer, text=CONTENT)
    log = "kafka" if "kafka" in system.servers else "nats"
    server = system.servers[log]
    server.kill()
    waiting = asyncio.create_task(sender.send(peer=peer, text=CONTENT))
    await until(lambda: any(log in line for line in logged(folder, "functions")))
    server.start()
    await asyncio.wait([waiting], timeout=60)


async def where_another_row_stands(
    system: System, folder: Path, sender: Client, peer: int, conversation_id: str
) -> None:
    """The next message's place is taken, which is an alarm."""
    last = (await sender.send(peer=peer, text=CONTENT)).seq
    row = (await system.stored(conversation_id, last))[-1]
    row |= {"id": row["id"] + 1, "msg_id": str(row["id"] + 1), "seq": last + 1}
    month = await month_of(system, conversation_id)
    names = ",".join(row)
    values = ",".join(f":{name}" for name in row)
    await execute(system, f"INSERT INTO message_{month} ({names}) VALUES ({values})", row)
    await sender.send(peer=peer, text=CONTENT)
    await until(lambda: any("ALARM" in line for line in logged(folder, "timeline-1")))


async def on_a_defect(system: System, conversation_id: str) -> str:
    """A row that nobody can read. Returns the trace id of the answer."""
    month = await month_of(system, conversation_id)
    await execute(system, f"UPDATE message_{month} SET mentions = :rubbish", {"rubbish": CONTENT})
    system.kill("redis")
    account = {"username": "alice", "password": PASSWORD}
    token = (await http(system, "/api/v1/auth/login", account))[1]["data"]["access_token"]
    path = f"/api/v1/messages?conversation_id={conversation_id}"
    status, body = await http(system, path, None, Authorization=f"Bearer {token}")
    assert (status, body["code"]) == (500, "internal")
    return str(body["trace_id"])


async def month_of(system: System, conversation_id: str) -> int:
    query = "SELECT MAX(month) FROM conversation_month WHERE conversation_id = :c"
    return int((await execute(system, query, {"c": conversation_id}))[0][0])


async def execute(
    system: System, sql: str, values: dict[str, Any] | None = None
) -> list[tuple[Any, ...]]:
    engine = open_engine(system.db_url)
    try:
        async with engine.begin() as connection:
            result = await connection.execute(text(sql), values or {})
            return [tuple(row) for row in result] if result.returns_rows else []
    finally:
        await engine.dispose()
