"""The images of the Dockerfile, run as docker-compose.yml runs them: any user, read-only root, no capabilities.

No registry is needed: the servers run on this machine, on its network; NATS with the permissions of every role.
"""

import asyncio
import json
import os
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from clients.python.natterjack import Client, MessageReceived
from functions.__main__ import registry
from laptop.ports import free_ports
from schemas.messages import Message
from shared.ids import random_token
from tests import servers
from tests.deployment import (
    ROOT,
    GuardedNats,
    build_image,
    docker,
    health_of,
    log_of,
    require_docker,
)
from tests.servers import MariaDbServer, RedisServer
from tests.support import until

pytestmark = pytest.mark.slow

# A user that no image knows; who is not root can hand his secrets to nobody but himself.
UID = 54_321 if os.geteuid() == 0 else os.geteuid()
PASSWORD = "correct horse"
STOP_S = 5


def image_of(function: str) -> str:
    return f"natterjack-test/{function}"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> None:
    """One image for each process."""
    require_docker()
    folder = tmp_path_factory.mktemp("build")
    build_image(image_of("edge"), "edge", "edge", folder)
    build_image(image_of("bridge"), "edge", "bridge", folder)
    for function in ("migrations", *registry()):
        build_image(image_of(function), "functions", function, folder)
    for name in ("edge", "send"):
        size = int(docker("image", "inspect", "--format", "{{.Size}}", image_of(name)))
        servers.PARTICIPANTS["Docker engine"] += f", {name} {size / 1e6:.0f} MB"


@pytest.fixture(scope="module")
def nats_with_roles() -> Iterator[GuardedNats]:
    with servers.serve("nats-server", lambda folder: GuardedNats(folder, uid=UID)) as server:
        yield server


@dataclass(frozen=True, slots=True)
class Containers:
    """What runs: the edge's address, and the names of the containers by process."""

    url: str
    names: dict[str, str]

    def healthy(self) -> bool:
        """Whether the health checks of all of them succeed."""
        found = docker("inspect", "--format", "{{.State.Health.Status}}", *self.names.values())
        return set(found.split()) == {"healthy"}


def run(name: str, function: str, secrets: Path, env: dict[str, str], *options: str) -> None:
    """`docker run` as little privileged as in docker-compose.yml."""
    role = function if function in {"edge", "timeline", "migrations"} else "functions"
    env = env | {"IM_NATS_URL_FILE": f"/run/secrets/nats_{role}_url"}
    arguments = ["run", "--name", name, "--network", "host", "--user", f"{UID}:{UID}"]
    arguments += ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"]
    arguments += ["--security-opt", "no-new-privileges", "--volume", f"{secrets}:/run/secrets:ro"]
    for variable, value in env.items():
        arguments += ["--env", f"{variable}={value}"]
    docker(*arguments, *options, image_of(function))


@pytest.fixture
async def containers(
    images: None,
    nats_with_roles: GuardedNats,
    redis_server: RedisServer,
    mariadb_server: MariaDbServer,
) -> AsyncIterator[Containers]:
    """Everything started and healthy; removed at the end, with its last words if the test fails."""
    port = free_ports(1)[0]
    env = {
        "IM_EDGE_HOST": "127.0.0.1",
        "IM_EDGE_PORT": str(port),
        "IM_REDIS_URL": redis_server.url,
        "IM_DB_URL": await mariadb_server.new_database(),
        "IM_LOG_URL": "jetstream://",
        "IM_LOG_PARTITIONS": "8",
        "IM_STRANGERS": "allow",
        "IM_JWT_SECRET_FILE": "/run/secrets/jwt_secret",
    }
    mark = random_token()[:8].strip("-_")
    secrets = nats_with_roles.secrets
    names = {process: f"im-{mark}-{process}" for process in ("edge", *registry())}
    migrations = f"im-{mark}-migrations"
    check = "env IM_NATS_URL_FILE=/run/secrets/nats_monitor_url /app/deploy/run --check"
    try:
        await asyncio.to_thread(run, migrations, "migrations", secrets, env)
        for process, name in names.items():
            await asyncio.to_thread(
                run, name, process, secrets, env, "--detach", "--health-interval", "5s",
                *(("--health-cmd", check) if process != "edge" else ()),
            )  # fmt: skip
        running = Containers(f"http://127.0.0.1:{port}", names)
        await until(running.healthy, 90)
        yield running
    except BaseException:
        for process, name in names.items():
            print(f"--- {process}: {health_of(name)}\n{log_of(name)}")
        raise
    finally:
        docker("rm", "--force", "--volumes", migrations, *names.values(), check=False)


async def user(url: str, name: str) -> Client:
    """Registers a user; the client logs in by itself."""
    body = json.dumps({"username": name, "password": PASSWORD}).encode()

    def register() -> int:
        with urllib.request.urlopen(f"{url}/api/v1/auth/register", body, timeout=20) as answer:  # noqa: S310
            return int(answer.status)

    assert await asyncio.to_thread(register) == 201
    return Client(url, username=name, password=PASSWORD)


async def received(client: Client, count: int) -> list[Message]:
    got: list[Message] = []
    async for event in client.events():
        if isinstance(event, MessageReceived):
            got.append(event.message)
            if len(got) == count:
                break
    return got


async def test_two_users_talk_through_the_images_and_all_of_them_stop_when_told(
    containers: Containers,
) -> None:
    async with (
        await user(containers.url, "alice") as alice,
        await user(containers.url, "bob") as bob,
    ):
        acks = []
        for i in range(20):
            sender, peer = (alice, bob) if i % 2 == 0 else (bob, alice)
            acks.append(await sender.send(peer=peer.user_id, text=f"message {i}"))
        at_alice, at_bob = await asyncio.gather(received(alice, 20), received(bob, 20))
        assert [ack.seq for ack in acks] == list(range(1, 21))
        assert [m.content for m in at_bob] == [f"message {i}" for i in range(20)]
        assert at_alice == at_bob
        pages = [m.seq async for m in alice.messages(acks[0].conversation_id)]
        assert pages == list(range(1, 21))

    name = containers.names["send"]
    assert docker("exec", name, "id", "-u").strip() == str(UID)
    writable = "touch /tmp/x && ! touch /app/x /x /venv/x 2>/dev/null && echo read-only"
    assert docker("exec", name, "sh", "-c", writable).strip() == "read-only"

    # Whoever needs longer than STOP_S is killed, which shows in his status: 137.
    docker("stop", "--time", str(STOP_S), *containers.names.values())
    statuses = {
        process: docker("inspect", "--format", "{{.State.ExitCode}}", name).strip()
        for process, name in containers.names.items()
    }
    assert statuses == dict.fromkeys(containers.names, "0")


def test_an_image_holds_the_code_and_nothing_of_the_machine_that_built_it(images: None) -> None:
    shell = ("run", "--rm", "--network", "none", "--entrypoint", "sh", image_of("send"), "-c")
    present = docker(*shell, "ls -A /app").split()
    assert present == [
        "deploy",
        "edge",
        "functions",
        "migrations",
        "requirements",
        "schemas",
        "shared",
    ]
    left = docker(
        *shell, "ls -d /etc/pip.conf /run/ca.pem /root/.cache /venv/bin/pip 2>/dev/null || true"
    )
    assert left == ""
    environment = json.loads(
        docker("image", "inspect", "--format", "{{json .Config.Env}}", image_of("send"))
    )
    assert {line.partition("=")[0] for line in environment} >= {"IM_RUN", "PYTHONUNBUFFERED"}
    assert not [line for line in environment if line.startswith(("PIP_", "SSL_"))]


def test_an_image_says_which_packages_are_in_it(images: None) -> None:
    for process, group in (("edge", "edge"), ("send", "functions")):
        shell = ("run", "--rm", "--network", "none", "--entrypoint", "cat", image_of(process))
        bill = json.loads(docker(*shell, "/venv/sbom.cdx.json"))
        assert bill["specVersion"] == "1.6"
        listed = {f"{c['purl'].removeprefix('pkg:pypi/')}" for c in bill["components"]}
        lock = (ROOT / "requirements" / f"{group}.txt").read_text()
        pinned = {
            line.split()[0].replace("==", "@")
            for line in lock.splitlines()
            if "==" in line and not line.startswith((" ", "#"))
        }
        assert listed <= pinned, "nothing else got in"
        assert len(listed) > len(pinned) * 0.8, "the rest is for other platforms"
        assert any(name.startswith("sqlalchemy@") for name in listed) is (process == "send")


def test_the_same_sources_make_the_same_layers(
    images: None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    again = image_of("edge-again")
    build_image(again, "edge", "edge", tmp_path_factory.mktemp("again"), "--no-cache")
    layers = ("image", "inspect", "--format", "{{json .RootFS.Layers}}")
    assert docker(*layers, again) == docker(*layers, image_of("edge"))


def test_a_function_of_ones_own_is_built_on_one_of_ours(images: None) -> None:
    build = ("build", "--quiet", "--build-arg", f"BASE={image_of('send')}")
    docker(*build, "--tag", image_of("translate"), str(ROOT / "examples" / "translate"))
    code = "from functions.__main__ import load; print(*(f.name for f in load('translate').facts))"
    python = ("run", "--rm", "--network", "none", "--read-only", "--user", f"{UID}:{UID}")
    said = docker(*python, "--entrypoint", "python3", image_of("translate"), "-c", code)
    assert said.strip() == "message.sent"


@pytest.mark.parametrize("process", ["edge", "send", "bridge"])
def test_a_missing_setting_is_one_line_and_status_two(images: None, process: str) -> None:
    name = f"im-{random_token()[:8].strip('-_')}-{process}"
    try:
        docker(
            "run",
            "--name",
            name,
            "--network",
            "none",
            "--read-only",
            image_of(process),
            check=False,
        )
        assert docker("inspect", "--format", "{{.State.ExitCode}}", name).strip() == "2"
    finally:
        docker("rm", "--force", name)
