"""The timeline's shell against a store and a log in memory, under random interleavings: several owners, crashes,
a store that fails or loses its answers, tiny caches. The checks are tried too: each broken rule must be caught.
"""

import asyncio
import copy
import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

import msgspec
import pytest

from functions.timeline import core, shell
from functions.timeline.core import Accepted, Answer, Conversation, Progress
from functions.timeline.outbox import Outbox
from functions.timeline.pending import Pending
from functions.timeline.publish import Publisher
from functions.timeline.shell import Timeline
from functions.timeline.store import FencedError, Loaded, StoreAwayError
from schemas.records import SendRequested
from shared import patience
from shared.adapters.memory import MemoryBus
from shared.adapters.memory_log import MemoryLog
from shared.errors import UnknownOutcome
from shared.ids import EPOCH_MS, snowflake_ms
from shared.log import DEAD, EVENTS, REQUESTS

PARTITIONS = 2


class MemoryStore:
    """`Store` in memory, with moments of waiting and failures at random."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.progress: dict[int, Progress] = {}
        self.rows: dict[tuple[str, int], tuple[object, ...]] = {}
        self.answers: dict[bytes, Answer] = {}
        self.heads: dict[str, Conversation] = {}
        self.overwritten: list[object] = []

    async def claim(self, partitions: Iterable[int]) -> dict[int, Progress]:
        await self._wait()
        return {p: self.progress.setdefault(p, Progress()) for p in partitions}

    async def load(
        self, expected: Mapping[int, AbstractSet[Progress]], ids: list[str], keys: list[bytes]
    ) -> Loaded:
        await self._wait()
        self._fence(expected)
        return Loaded(
            {i: copy.copy(self.heads[i]) for i in ids if i in self.heads},
            {k: self.answers[k] for k in keys if k in self.answers},
        )

    async def commit(self, batch: Mapping[int, Pending]) -> None:
        await self._wait()
        undone = {p: b for p, b in batch.items() if self.progress[p] != b.new}
        self._fence({p: {b.old} for p, b in undone.items()})
        for partition, pending in undone.items():
            self._write(pending)
            self.progress[partition] = pending.new
        await self._wait()  # its answer may get lost

    async def ensure_months(self, needed: Iterable[int]) -> None:
        del needed
        await self._wait()

    def _fence(self, expected: Mapping[int, AbstractSet[Progress]]) -> None:
        if moved := [p for p, known in expected.items() if self.progress[p] not in known]:
            raise FencedError(moved)

    def _write(self, pending: Pending) -> None:
        for month, rows in pending.messages.items():
            for row in rows:
                place = (str(row[2]), int(row[10]))
                if self.rows.setdefault(place, row) != row:
                    self.overwritten.append(row)
                old = self.heads.get(place[0], Conversation())
                self.heads[place[0]] = Conversation(max(old.max_seq, place[1]), 0, month)
        for key, digest, msg_id, seq in pending.keys:
            self.answers[key] = Answer(digest, msg_id, seq)

    async def _wait(self) -> None:
        for _ in range(self.chance.randrange(4)):
            await asyncio.sleep(0)
        if self.chance.random() < 0.05:
            raise StoreAwayError("at random")


class ShakyLog(MemoryLog):
    """A log whose long appends take their time, and break off in the middle at random."""

    def __init__(self, chance: random.Random, clock: Callable[[], int]) -> None:
        super().__init__(PARTITIONS, clock)
        self.chance = chance

    async def append_all(self, topic: str, records: Sequence[tuple[str, bytes]]) -> None:
        breaks = self.chance.randrange(len(records)) if self.chance.random() < 0.1 else -1
        for i, (key, value) in enumerate(records):
            await asyncio.sleep(0)
            if i == breaks:
                raise UnknownOutcome("at random")
            await self.append(topic, key, value)


class NoCache:
    """`Hot` that only takes its time."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance

    async def add(self, messages: Iterable[Accepted]) -> None:
        del messages
        for _ in range(self.chance.randrange(4)):
            await asyncio.sleep(0)


class World:
    """A log, a store, and what askers and devices have heard."""

    def __init__(self, seed: int, store: type[MemoryStore] = MemoryStore) -> None:
        self.chance = random.Random(seed)
        self.clock = EPOCH_MS + 1_000
        self.log = ShakyLog(self.chance, lambda: self.clock)
        self.bus = MemoryBus()
        self.store = store(self.chance)
        self.acks: dict[tuple[str, int, str, str], set[bytes]] = {}
        self.delivered: dict[tuple[str, int], set[str]] = {}
        self.bus.listen("_INBOX.e.>", self._answered)
        self.bus.listen("im.v1.user.*", self._pushed)
        self._asked: dict[str, tuple[str, int, str, str]] = {}
        self.poison = 0

    def append(self) -> None:
        """A message, often a repeat, sometimes with another content, sometimes nonsense."""
        self.clock += self.chance.randrange(-1, 3)
        if self.chance.random() < 0.03:
            self.poison += 1
            self.log.put(REQUESTS, self.chance.randrange(PARTITIONS), b"nonsense")
            return
        sender, receiver = self.chance.choice([(1, 2), (2, 1), (1, 3), (4, 5)])
        low, high = sorted((sender, receiver))
        request = SendRequested(
            conversation_id=f"p_{low}_{high}",
            user_id=sender,
            at=0,
            reply=f"_INBOX.e.{'x' * 22}.{len(self._asked)}",
            client_msg_id=f"m{self.chance.randrange(12)}",
            msg_type=1,
            content="x" if self.chance.random() < 0.9 else "y",
        )
        key = (request.conversation_id, sender, request.client_msg_id, request.content)
        self._asked[request.reply] = key
        self.log.append(REQUESTS, request.conversation_id, msgspec.json.encode(request))

    def owner(self) -> "asyncio.Task[None]":
        """A timeline that crashes at a random point."""
        countdown = iter(range(self.chance.randrange(1, 25), -1, -1))

        def at(_: str) -> None:
            if next(countdown, 0) == 0:
                raise RuntimeError("crash")

        return self.start(at)

    def start(self, at: Callable[[str], None] = lambda _: None) -> "asyncio.Task[None]":
        """A timeline with tiny caches. `self.last` is the newest one."""
        self.last = Timeline(
            self.store, NoCache(self.chance), self.bus, self.log,
            at=at, commit_s=0.0, max_conversations=PARTITIONS, max_answers=PARTITIONS,
        )  # fmt: skip
        reader = self.log.reader(REQUESTS, self.last)
        return asyncio.create_task(self.last.run(reader))

    async def run(self) -> None:
        """A while of everything at once; at the end one owner that works in peace."""
        owners: set[asyncio.Task[None]] = set()
        crashed: list[asyncio.Task[None]] = []
        for _ in range(150):
            self.append()
            crashed += [task for task in owners if task.done()]
            owners = {task for task in owners if not task.done()}
            if len(owners) < 3 and self.chance.random() < 0.2:
                owners.add(self.owner())
            for _ in range(self.chance.randrange(6)):
                await asyncio.sleep(0)
        for task in owners:
            task.cancel()
        await asyncio.gather(*owners, *crashed, return_exceptions=True)
        task = self.start()
        while self._behind():
            await asyncio.sleep(0.001)
            if task.done():
                await task
        await self.last.stop()
        await task

    def _behind(self) -> bool:
        newest = {r.partition: r.offset + 1 for r in self.log.records(REQUESTS)}
        return any(self.store.progress.get(p, Progress()).next < end for p, end in newest.items())

    def violations(self) -> list[str]:
        """What the promises forbid."""
        found = []
        if self.store.overwritten:
            found.append("a row changed")
        seqs: dict[str, list[int]] = {}
        for conversation, seq in sorted(self.store.rows):
            seqs.setdefault(conversation, []).append(seq)
        if any(numbers != list(range(1, len(numbers) + 1)) for numbers in seqs.values()):
            found.append(f"gaps: {seqs}")
        ids = [row[0] for row in self.store.rows.values()]
        if len(ids) != len(set(ids)):
            found.append("a msg_id twice")
        keys = [(row[2], row[3], row[12]) for row in self.store.rows.values()]
        if len(keys) != len(set(keys)):
            found.append("a message twice")
        rows = {
            (r[2], r[3], r[12], r[7]): (r[1], r[10], snowflake_ms(int(str(r[0]))))
            for r in self.store.rows.values()
        }
        for key, answers in self.acks.items():
            acks = {(a["msg_id"], a["seq"], a["timestamp"]) for a in map(json.loads, answers)}
            if acks != {rows.get(key)}:
                found.append(f"{key} was acked as {acks}, stored as {rows.get(key)}")
        found += [
            f"{place} delivered as {ids}" for place, ids in self.delivered.items() if len(ids) > 1
        ]
        if set(self.delivered) != set(self.store.rows):
            found.append("delivered is not what is stored")
        facts: dict[str, list[int]] = {}
        for record in self.log.records(EVENTS):
            data = json.loads(record.value)["data"]
            of = facts.setdefault(data["conversation_id"], [])
            if data["seq"] not in of:
                of.append(data["seq"])
        if facts != seqs:
            found.append(f"facts are not what is stored, in order: {facts}")
        if len({r.value for r in self.log.records(DEAD)}) != self.poison:
            found.append("poison is not in the dead letters")
        return found

    def _answered(self, subject: str, _reply: str, payload: bytes, headers: bytes) -> None:
        if not headers:
            self.acks.setdefault(self._asked[subject], set()).add(payload)

    def _pushed(self, _subject: str, _reply: str, payload: bytes, _headers: bytes) -> None:
        frame = json.loads(payload)
        if frame["type"] == "message":
            data = frame["data"]
            self.delivered.setdefault((data["conversation_id"], data["seq"]), set()).add(
                data["msg_id"]
            )


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "RETRY_S", (0.0, 0.0))


async def broken(store: type[MemoryStore] = MemoryStore, seeds: int = 40) -> list[str]:
    """The first violations within some random runs, or none."""
    for seed in range(seeds):
        world = World(seed, store)
        try:
            async with asyncio.timeout(10):
                await world.run()
        except Exception as error:  # noqa: BLE001 - a run that does not end well is caught too
            return [repr(error)]
        if found := world.violations():
            return found
    return []


@pytest.mark.parametrize("block", range(4))
async def test_no_interleaving_breaks_a_promise(block: int) -> None:
    for seed in range(block * 25, block * 25 + 25):
        world = World(1_000 + seed)
        async with asyncio.timeout(30):
            await world.run()
        assert world.violations() == []


class NoCompareAndSet(MemoryStore):
    async def commit(self, batch: Mapping[int, Pending]) -> None:
        await self._wait()
        for partition, pending in batch.items():
            self._write(pending)
            self.progress[partition] = pending.new


class StaleLoad(MemoryStore):
    async def load(
        self, expected: Mapping[int, AbstractSet[Progress]], ids: list[str], keys: list[bytes]
    ) -> Loaded:
        del expected
        return await super().load({}, ids, keys)


class ProgressFirst(MemoryStore):
    async def commit(self, batch: Mapping[int, Pending]) -> None:
        self._fence({p: {b.old} for p, b in batch.items() if self.progress[p] != b.new})
        self.progress.update({p: b.new for p, b in batch.items()})
        await asyncio.sleep(0)
        await self._wait()
        for pending in batch.values():
            self._write(pending)


class NoLookUp(MemoryStore):
    async def load(
        self, expected: Mapping[int, AbstractSet[Progress]], ids: list[str], keys: list[bytes]
    ) -> Loaded:
        del keys
        return await super().load(expected, ids, [])


class NoRows(MemoryStore):
    def _write(self, pending: Pending) -> None:
        if self.chance.random() < 0.9:
            super()._write(pending)


@pytest.mark.parametrize("store", [NoCompareAndSet, StaleLoad, ProgressFirst, NoLookUp, NoRows])
async def test_the_checks_catch_a_broken_store(store: type[MemoryStore]) -> None:
    assert await broken(store)


async def test_the_checks_catch_a_number_that_is_not_of_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks = iter(range(EPOCH_MS + 10_000, EPOCH_MS + 10_000_000))

    def by_own_clock(state: core.State, entry: core.Entry) -> core.Effect:
        record = msgspec.structs.replace(entry.record, ms=next(ticks))
        return genuine(state, msgspec.structs.replace(entry, record=record))

    genuine = core.apply
    monkeypatch.setattr(shell, "apply", by_own_clock)
    assert await broken()


async def test_the_checks_catch_a_forgotten_pending_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = shell._forget_oldest
    monkeypatch.setattr(
        shell, "_forget_oldest", lambda cache, most, _: genuine(cache, most, 1 << 60)
    )
    assert await broken()


async def test_the_checks_catch_a_commit_before_the_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    async def not_yet(_: Outbox) -> None:
        await asyncio.sleep(0)

    async def then(timeline: Timeline) -> None:
        await commit(timeline)
        await flush(timeline._outbox)

    flush, commit = Outbox.flush, Timeline._commit
    monkeypatch.setattr(Outbox, "flush", not_yet)
    monkeypatch.setattr(Timeline, "_commit", then)
    assert await broken()


async def test_the_checks_catch_a_commit_of_what_was_not_published(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Publisher, "publish", lambda *_: None)
    assert await broken()
