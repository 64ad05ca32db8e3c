"""Presence on the whole system: several devices, and an edge that dies without a word."""

from contextlib import AsyncExitStack

from schemas.friends import Application, ApplyFriend
from tests.devices import Device
from tests.system import System

DEAD_S = 30
"""A killed edge is noticed within that."""


async def test_on_line_until_the_last_device_leaves_or_its_edge_dies(system: System) -> None:
    async with await system.user("alice") as client, AsyncExitStack() as stack:
        alice = Device(client)
        devices = [await stack.enter_async_context(await system.user("bob")) for _ in range(3)]
        bob = devices[0].user_id
        for one, other in ((client, bob), (devices[0], client.user_id)):
            await one.request(ApplyFriend(other), Application)
        found = await client.presence.add([bob])
        if not (found and found[0].online):
            await alice.until(lambda d: d.online.get(bob) is True)
        for device in devices[:2]:
            await device.close()
        last = await stack.enter_async_context(await system.user("bob"))
        await devices[2].close()
        assert alice.online.get(bob, True), "he was there all the time"
        await last.close()
        await alice.until(lambda d: d.online.get(bob) is False)
        again = await stack.enter_async_context(await system.user("bob"))
        await alice.until(lambda d: d.online.get(bob) is True)
        system.kill("edge")
        await again.close()
        await alice.until(lambda d: d.online.get(bob) is False, DEAD_S)
