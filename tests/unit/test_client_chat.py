"""The terminal chat as a process, with a pipe for a terminal."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp.test_utils import TestServer

from clients.python.natterjack.chat_account import AccountFiles, default_url
from clients.python.natterjack.text import printable
from tests.unit.fake_server import FakeServer

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    fake = FakeServer()
    async with TestServer(fake.app(), handler_cancellation=True) as running:
        fake.url = str(running.make_url("/"))
        yield fake


async def start(home: Path, *arguments: str) -> Process:
    environment = {**os.environ, "XDG_CONFIG_HOME": str(home), "IM_DATA_DIR": str(home)}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "clients.python.natterjack.chat", *arguments),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        cwd=ROOT,
        env=environment,
    )


async def line_with(chat: Process, text: str) -> str:
    """The next line of output that holds `text`."""
    assert chat.stdout is not None
    seen = []
    async with asyncio.timeout(20):
        while line := (await chat.stdout.readline()).decode():
            seen.append(line)
            if text in line:
                return line
    raise AssertionError(f"no {text!r} in {seen}")


def type_in(chat: Process, line: str) -> None:
    assert chat.stdin is not None
    chat.stdin.write(line.encode() + b"\n")


async def finish(home: Path, *arguments: str, typed: str = "") -> tuple[int | None, str, str]:
    chat = await start(home, *arguments)
    async with asyncio.timeout(20):
        out, err = await chat.communicate(typed.encode())
    return chat.returncode, out.decode(), err.decode()


async def test_two_terminals_talk(server: FakeServer, tmp_path: Path) -> None:
    """Registration, picking a peer, acks, incoming lines, a broken connection, history, the end."""
    common = ("--url", server.url, "--password", "password1")
    alice = await start(tmp_path, "--user", "alice", *common)
    await line_with(alice, "registered alice")
    await line_with(alice, "Type the name")
    bob = await start(tmp_path, "--user", "bob", "--peer", "alice", *common)
    await line_with(bob, "talking to alice")
    type_in(bob, "hello, ünïcode")
    assert await line_with(bob, "✓") == "✓ 1  hello, ünïcode\n"
    assert (await line_with(alice, "hello"))[5:] == " bob: hello, ünïcode\n"
    type_in(alice, "nobody")
    await line_with(alice, "! there is no user nobody")
    type_in(alice, "bob")
    await line_with(alice, "bob: hello")
    await server.drop_all()
    await line_with(alice, "reconnecting")
    await line_with(alice, "connected")
    type_in(alice, "and back")
    await line_with(alice, "✓ 2")
    await line_with(bob, "alice: and back")
    type_in(bob, "/history 1")
    await line_with(bob, "alice: and back")
    type_in(bob, "/nonsense")
    await line_with(bob, "/quit")
    for chat in (alice, bob):
        type_in(chat, "/quit")
        async with asyncio.timeout(20):
            _, err = await chat.communicate()
        assert (chat.returncode, err) == (0, b"")


async def test_kept_tokens_and_what_came_meanwhile(server: FakeServer, tmp_path: Path) -> None:
    server.account("bob")
    common = ("--user", "alice", "--url", server.url)
    arguments = (*common, "--password", "password1", "--peer", "bob")
    code, out, err = await finish(tmp_path, *arguments, typed="one\ntwo\nthree")
    assert (code, err) == (0, "")
    assert [line for line in out.splitlines() if "✓" in line] == [
        "✓ 1  one",
        "✓ 2  two",
        "✓ 3  three",
    ]
    for file in (tmp_path / "natterjack").glob("*.json"):
        assert file.stat().st_mode & 0o777 == 0o600
    await server.post(1, 2, "while you were away")
    again = await start(tmp_path, *common)  # no password, no peer
    await line_with(again, "bob")
    await line_with(again, "bob: while you were away")
    again.kill()
    await again.communicate()


async def test_a_second_terminal_of_one_user_needs_its_own_session(
    server: FakeServer, tmp_path: Path
) -> None:
    common = ("--user", "alice", "--url", server.url)
    first = await start(tmp_path, *common, "--password", "password1")
    await line_with(first, "Type the name")
    code, _, err = await finish(tmp_path, *common)
    assert (code, err) == (
        1,
        "chat: no terminal to ask for the password; give it with --password\n",
    )
    code, _, err = await finish(tmp_path, *common, "--password", "password1")
    assert (code, err) == (0, "")
    first.kill()
    await first.communicate()


async def test_errors_are_one_line(server: FakeServer, tmp_path: Path) -> None:
    server.account("alice", "password1")
    user = ("--user", "alice", "--password")
    for arguments, message in [
        ((*user, "wrong-one", "--url", server.url), "wrong password for alice"),
        ((*user, "password1", "--url", server.url, "--peer", "x"), "there is no user x"),
        ((*user, "password1", "--url", "http://127.0.0.1:1"), "cannot reach http://127.0.0.1:1"),
        ((*user, "password1", "--url", "nonsense"), "nonsense"),
    ]:
        code, _, err = await finish(tmp_path, *arguments)
        assert code == 1
        assert message in err
        assert err.count("\n") == 1


def test_the_address_of_a_running_laptop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IM_DATA_DIR", str(tmp_path))
    assert default_url() == "http://127.0.0.1:8080"
    (tmp_path / "run.json").write_text(json.dumps({"urls": {"http": "http://127.0.0.1:9000"}}))
    assert default_url() == "http://127.0.0.1:9000"


def test_accounts_do_not_share_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    names = ["alice", "bob!", "bob_", "张三", "李四", "__", "\U0001f438" * 64]
    files = [AccountFiles("http://127.0.0.1:8080", name) for name in names]
    assert all(f.held for f in files)
    assert len({f.tokens for f in files}) == len(names)
    assert not AccountFiles("http://127.0.0.1:8080", "Alice").held
    for f in files:
        f.close()


def test_nobody_steers_the_terminal_of_another() -> None:
    assert printable("a\x1b[2Jb\nc\r") == "a�[2Jb ⏎ c�"
