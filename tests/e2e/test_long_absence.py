"""A device that was away for 10,000 messages and hundreds of changes."""

from clients.python.natterjack import MemoryPositions
from clients.python.natterjack.positions import Reached
from shared.adapters.sql import open_engine
from shared.ids import private_conversation
from tests.archive import Archive
from tests.devices import Device
from tests.system import System

MESSAGES = 10_000
KNOWN = 30
"""What the device had before."""
EDITED = range(10, 260)
RECALLED = range(9_990, 10_000)


async def test_it_catches_up(system: System) -> None:
    async with await system.user("bob") as b:
        bob = b.user_id
    async with await system.user("alice") as alice:
        conversation_id = private_conversation(alice.user_id, bob)
        engine = open_engine(system.db_url)
        archive = Archive(engine)
        await archive.store_all(
            [archive.message(conversation_id, alice.user_id, f"m{i}") for i in range(MESSAGES)]
        )
        for seq in EDITED:
            await archive.change(conversation_id, seq, content="edited", edited_ms=archive.ms)
        for seq in RECALLED:
            await archive.recall(conversation_id, seq)
        await engine.dispose()
        newest = await alice.send(peer=bob, text="newest")
        assert newest.seq == MESSAGES + 1, "the timeline goes on where SQL is"

        positions = MemoryPositions()
        positions.save({conversation_id: Reached(seq=KNOWN)})
        async with await system.user("bob", store=positions) as b:
            device = Device(b)
            changes = len(EDITED) + len(RECALLED)
            await device.until(
                lambda d: (
                    newest.seq in d.messages
                    and sum(m.rev > 0 for m in d.messages.values()) == changes
                ),
                60,
            )
            there = {m.seq: m async for m in alice.messages(conversation_id)}
            known_still = set(range(1, KNOWN + 1)) - set(EDITED)
            assert device.messages == {s: m for s, m in there.items() if s not in known_still}
            assert {s for s, m in device.messages.items() if m.status == 1} == set(RECALLED)
            in_order = [m.seq for m in device.states if m.seq > KNOWN]
            assert list(dict.fromkeys(in_order)) == list(range(KNOWN + 1, newest.seq + 1))
