"""`translate` of docs/functions.md, a function that is not ours, beside the whole system: on NATS, behind a bridge."""

import asyncio
import json
from contextlib import suppress

import nats
import pytest
from nats.js.errors import NotFoundError

from clients.python.natterjack import Client, Pushed
from functions.__main__ import registry
from laptop.ports import free_ports
from shared.adapters.event_stream import STREAM
from tests.system import ROOT, System


async def translation(client: Client) -> dict[str, str]:
    """The next translation that is pushed to a client."""
    async for event in client.events():
        if isinstance(event, Pushed) and event.type == "translation":
            found: dict[str, str] = json.loads(bytes(event.data))
            return found
    raise AssertionError("the client was closed")


def start(system: System, road: str) -> None:
    """Starts the example as docs/functions.md does, or as Knative would: HTTP and a bridge."""
    system.env["IM_FUNCTIONS_PATH"] = str(ROOT / "examples")
    if road == "nats":
        system.add("translate", ["functions", "translate"])
        return
    function, bridge = free_ports(2)
    plain = dict(system.env)
    system.env |= {"PORT": str(function), "K_SERVICE": "translate"}
    system.add("translate", ["functions", "translate"])
    system.env = plain | {
        "PORT": str(bridge),
        "K_SINK": f"http://127.0.0.1:{function}",
        "IM_FACTS": "message.sent",
    }
    system.add("translate-bridge", ["shared.hosts.bridge", "translate"])
    system.env = plain


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


@pytest.mark.parametrize("road", ["nats", "bridge"])
async def test_its_translation_reaches_the_receiver(system: System, road: str) -> None:
    start(system, road)
    await following(system)
    async with await system.user("anna") as anna, await system.user("bob") as bob:
        async with asyncio.timeout(60):
            sent = await anna.send(peer=bob.user_id, text="Guten Morgen")
            heard = await translation(bob)
    assert heard == {
        "msg_id": sent.msg_id,
        "conversation_id": sent.conversation_id,
        "text": "good morning",
    }


def test_functions_are_found_where_the_path_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "translate" not in registry()
    import functions

    monkeypatch.setattr(functions, "__path__", [*functions.__path__, str(ROOT / "examples")])
    assert "translate" in registry()
