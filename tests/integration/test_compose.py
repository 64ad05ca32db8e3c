"""docker-compose.yml as Compose understands it, the secrets it needs, and what NATS lets each role do."""

import asyncio
import json
import os
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from deploy.make_secrets import main as make_secrets
from functions.__main__ import load, registry
from schemas.commands import COMMANDS
from shared import subjects
from tests import servers
from tests.deployment import ROOT, GuardedNats, compose_model

OWN_PROCESSES = {"edge", "migrate", *registry()}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A host on which `./task secrets` was run."""
    folder = tmp_path_factory.mktemp("host")
    for name in ("docker-compose.yml", "deploy"):
        (folder / name).symlink_to(ROOT / name)
    assert make_secrets(["--root", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def services(host: Path) -> dict[str, Any]:
    """The services, after Compose itself has accepted and resolved the file."""
    found: dict[str, Any] = compose_model(host)["services"]
    return found


def test_every_function_has_a_service_of_its_own(services: dict[str, Any]) -> None:
    built = {
        name: service["build"]["args"]["FUNCTION"]
        for name, service in services.items()
        if "build" in service
    }
    expected = {name: name for name in registry()}
    assert built == expected | {"edge": "edge", "migrate": "migrations"}
    assert services["edge"]["build"]["args"]["GROUP"] == "edge"


@pytest.mark.parametrize("name", sorted(OWN_PROCESSES))
def test_own_processes_may_do_little(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service["user"].startswith(("0", "root"))
    assert [mount.split(":")[0] for mount in service["tmpfs"]] == ["/tmp"]
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}
    assert "volumes" not in service


def test_functions_start_after_what_they_need_and_are_watched(services: dict[str, Any]) -> None:
    for name in registry():
        needs = {n: d["condition"] for n, d in services[name]["depends_on"].items()}
        assert needs["migrate"] == "service_completed_successfully"
        assert {needs[n] for n in ("nats", "redis", "kafka", "mysql")} == {"service_healthy"}
        assert "--check" in services[name]["healthcheck"]["test"]
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert services[needed]["healthcheck"]["test"], f"{name} waits for {needed} in vain"


def test_nothing_is_reached_from_outside(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}
    assert set(services["edge"]["networks"]).isdisjoint(services["mysql"]["networks"])


def test_no_secret_stands_in_the_file_or_in_an_environment(
    services: dict[str, Any], host: Path
) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    for path in (host / ".secrets").iterdir():
        secret = path.read_text().strip()
        assert len(secret) < 20 or secret not in text
    for name, service in services.items():
        for variable in service.get("environment", {}):
            if any(word in variable for word in ("PASSWORD", "SECRET", "ACCESS_KEY")):
                assert variable.endswith("_FILE"), f"{name}: {variable}"


def test_secrets_are_private_and_kept(host: Path) -> None:
    before = {p.name: p.read_text() for p in (host / ".secrets").iterdir()}
    assert make_secrets(["--root", str(host)]) == 0
    after = {p.name: p.read_text() for p in (host / ".secrets").iterdir()}
    assert after == before
    modes = {stat.S_IMODE(p.stat().st_mode) for p in (host / ".secrets").iterdir()}
    assert modes == {0o600}
    assert stat.S_IMODE((host / ".secrets").stat().st_mode) == 0o700
    assert "IM_UID=0" not in (host / ".env").read_text()
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {".env", ".secrets/", ".data/"} <= set(ignored)
    assert (ROOT / ".dockerignore").read_text().splitlines()[1] == "*"


def test_an_integrator_stays_who_he_is(tmp_path: Path) -> None:
    assert make_secrets(["--root", str(tmp_path), "--integrator", "42"]) == 0
    assert make_secrets(["--root", str(tmp_path)]) == 0
    assert "im.v1.cmd.42.message.*" in (tmp_path / ".secrets/nats_passwords.conf").read_text()


# --- What NATS lets each role do ------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded() -> Iterator[GuardedNats]:
    def make(folder: Path) -> GuardedNats:
        return GuardedNats(folder, uid=os.geteuid(), integrator=42)

    with servers.serve("nats-server", make) as server:
        yield server


class Role:
    """A bare connection of one role, and whether the server lets it do something."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._sid = 0

    async def may_publish(self, subject: str) -> bool:
        return await self.allowed(f"PUB {subject} 2\r\n{{}}")

    async def may_subscribe(self, subject: str, queue: str = "") -> bool:
        self._sid += 1
        return await self.allowed(f"SUB {subject} {queue} {self._sid}")

    async def allowed(self, command: str) -> bool:
        """The server refuses before it answers the ping behind."""
        self._writer.write(f"{command}\r\nPING\r\n".encode())
        refused = False
        async with asyncio.timeout(10):
            while (line := await self._reader.readline()) != b"PONG\r\n":
                assert line, "the server hung up"
                if line.startswith(b"-ERR"):
                    assert b"Permissions Violation" in line, line
                    refused = True
        return not refused


@asynccontextmanager
async def role(server: GuardedNats, user: str) -> AsyncIterator[Role]:
    url = urlsplit(server.url_of(user))
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    try:
        login = {"user": url.username, "pass": url.password, "verbose": False, "headers": True}
        writer.write(f"CONNECT {json.dumps(login)}\r\n".encode())
        yield Role(reader, writer)
    finally:
        writer.close()
        await writer.wait_closed()


ANSWERS = ("_INBOX.e.random.1", "_INBOX.u.7.x")
EVENTS = ("im.v1.user.7", "im.v1.group.7", "im.v1.evt.message.stored", *ANSWERS)
MAY_PUBLISH = {
    "edge": ("im.v1.cmd.0.auth.login", "im.v1.cmd.7.message.send"),
    "functions": (
        *(*EVENTS, "im.log.requests.0"),
        *("$JS.API.CONSUMER.CREATE.IM_EVT.x", "$JS.API.CONSUMER.MSG.NEXT.IM_EVT.x"),
        "$JS.ACK.IM_EVT.x.1.1.1.1.0",
    ),
    "timeline": (*EVENTS, "_INBOX.c.random.1", "$JS.API.CONSUMER.CREATE.IM_REQUESTS.x"),
    "migrations": ("$JS.API.STREAM.CREATE.IM_REQUESTS",),
    "monitor": ("$SRV.PING.send",),
    "integrator": ("im.v1.cmd.42.message.send",),
}
MAY_SUBSCRIBE = {
    "edge": ("im.v1.user.7", "im.v1.group.7", "_INBOX.e.random.*"),
    "functions": ("$SRV.PING", "$SRV.PING.send", "_INBOX.f.x.*", "_INBOX.c.random.*"),
    "timeline": ("$SRV.PING", "$SRV.PING.timeline", "_INBOX.f.x.*"),
    "migrations": ("_INBOX.f.x.*",),
    "monitor": ("_INBOX.u.0.x",),
    "integrator": ("im.v1.user.42", "_INBOX.u.42.x"),
}
ALL_PUBLISH = {
    *(subject for granted in MAY_PUBLISH.values() for subject in granted),
    *("im.v1.cmd.42.auth.logout", "im.v1.cmd.43.message.send", "$JS.API.STREAM.DELETE.IM_REQUESTS"),
    *("im.v1.user.42", "_INBOX.f.x.1", "_INBOX.u.0.x", "anything"),
}  # fmt: skip
ALL_SUBSCRIBE = {
    *(subject for granted in MAY_SUBSCRIBE.values() for subject in granted),
    *("im.v1.cmd.*.message.send", "im.v1.cmd.>", "im.v1.user.*", "_INBOX.>", "_INBOX.e.>", ">"),
    *("im.v1.user.43", "_INBOX.u.43.x", "im.log.requests.*", "$SYS.>"),
}  # fmt: skip
# What a role may as well, besides what stands above.
MAY_PUBLISH_TOO = {
    "edge": {"im.v1.cmd.42.auth.logout", "im.v1.cmd.43.message.send", "im.v1.cmd.42.message.send"},
    "functions": {"im.v1.user.42", "_INBOX.u.0.x"},
    "timeline": {"im.v1.user.42", "_INBOX.u.0.x"},
}
MAY_SUBSCRIBE_TOO = {
    "edge": {"im.v1.user.*", "im.v1.user.42", "im.v1.user.43", "_INBOX.e.>"},
    "functions": {"$SRV.PING.timeline"},
    "timeline": {"$SRV.PING.send"},
}


@pytest.mark.parametrize("user", sorted(MAY_PUBLISH))
async def test_a_role_may_publish_and_hear_only_its_own(guarded: GuardedNats, user: str) -> None:
    async with role(guarded, user) as client:
        published = {s for s in ALL_PUBLISH if await client.may_publish(s)}
        assert published == {*MAY_PUBLISH[user]} | MAY_PUBLISH_TOO.get(user, set())
        heard = {s for s in ALL_SUBSCRIBE if await client.may_subscribe(s)}
        assert heard == {*MAY_SUBSCRIBE[user]} | MAY_SUBSCRIBE_TOO.get(user, set())


async def test_commands_are_served_only_in_the_queue_of_their_function(
    guarded: GuardedNats,
) -> None:
    async with role(guarded, "functions") as client:
        for command in COMMANDS:
            subject = subjects.commands_of(command.type)
            assert await client.may_subscribe(subject, command.function), command.type
            assert not await client.may_subscribe(subject), command.type
            assert not await client.may_subscribe(subject, "other"), command.type
    async with role(guarded, "timeline") as client:
        assert not await client.may_subscribe("im.v1.cmd.*.message.send", "timeline")


@pytest.mark.parametrize("connect", ["{}", '{"user":"edge","pass":"wrong"}'])
async def test_nobody_enters_without_a_password(guarded: GuardedNats, connect: str) -> None:
    host, _, port = guarded.url.removeprefix("nats://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(f"CONNECT {connect}\r\nPING\r\n".encode())
        async with asyncio.timeout(10):
            lines = (await reader.read()).splitlines()
        assert lines[-1] == b"-ERR 'Authorization Violation'"
    finally:
        writer.close()
        await writer.wait_closed()


def test_functions_in_the_table_are_those_of_the_registry() -> None:
    """The permissions name queues; a function renamed in one place only would be denied its commands."""
    served = {name for name in registry() if load(name).handlers}
    assert served == {command.function for command in COMMANDS}
