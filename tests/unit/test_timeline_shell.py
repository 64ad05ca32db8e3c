"""The timeline's shell against a store and a log in memory, under random interleavings: several owners, crashes,
a store that fails or loses its answers, tiny caches. The checks are tried too: each broken rule must be caught.
"""

import asyncio
import copy
import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from functions.timeline import core, owned, shell
from functions.timeline.core import prepare
from functions.timeline.heads import Newest
from functions.timeline.hot import Hot
from functions.timeline.outbox import Outbox
from functions.timeline.pending import Answered, Pending
from functions.timeline.publish import Publisher
from functions.timeline.shell import Timeline
from functions.timeline.state import (
    Accepted,
    Answer,
    Changed,
    Conversation,
    Effect,
    Entry,
    Moved,
    Place,
    Position,
    Post,
    Progress,
    Reactor,
    Row,
    State,
)
from functions.timeline.store import FencedError, Loaded, Referred, Store, StoreAwayError
from schemas.records import (
    AnyRequest,
    DeliveredRequested,
    EditRequested,
    PinRequested,
    ReactRequested,
    ReadRequested,
    RecallRequested,
    SendRequested,
)
from shared import patience, tables
from shared.adapters.memory import MemoryBus
from shared.adapters.memory_log import MemoryLog
from shared.errors import UnknownOutcome
from shared.ids import EPOCH_MS
from shared.log import DEAD, EVENTS, REQUESTS
from shared.lookup import message_of

PARTITIONS = 2
COLUMNS = tables.message_table(202501).c.keys()
NOBODY: dict[str, Any] = {"conversation_id": "p_1_2", "user_id": 1, "at": 0}


class MemoryStore:
    """`Store` in memory, with moments of waiting and failures at random."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.progress: dict[int, Progress] = {}
        self.rows: dict[int, Row] = {}
        self.answers: dict[bytes, Answer] = {}
        self.heads: dict[str, Conversation] = {}
        self.positions: dict[Place, Position] = {}
        self.tables: dict[str, dict[Row, Row]] = {}
        self.overwritten: list[object] = []

    async def claim(self, partitions: Iterable[int]) -> dict[int, Progress]:
        await self._wait()
        return {p: self.progress.setdefault(p, Progress()) for p in partitions}

    async def lately(self, progress: Mapping[int, Progress]) -> Sequence[Newest]:
        del progress
        await self._wait()
        return [Newest(c, h.max_seq, h.max_rev, h.members_version) for c, h in self.heads.items()]

    async def load(
        self, expected: Mapping[int, AbstractSet[Progress]], ids: list[str], keys: list[bytes]
    ) -> Loaded:
        await self._wait()
        self._fence(expected)
        return Loaded(
            {i: copy.copy(self.heads[i]) for i in ids if i in self.heads},
            {k: self.answers[k] for k in keys if k in self.answers},
        )

    async def load_referred(
        self, expected: Mapping[int, AbstractSet[Progress]], posts: list[int], places: list[Place]
    ) -> Referred:
        await self._wait()
        self._fence(expected)
        found: dict[int, Post] = {}
        for post in posts:
            if post in self.rows:
                row: Any = SimpleNamespace(**dict(zip(COLUMNS, self.rows[post], strict=True)))
                rows = [r for r in self._table("message_reaction").values() if r[0] == post]
                reactors = tuple(Reactor(r[1], r[2]) for r in sorted(rows, key=lambda r: r[3]))
                found[post] = Post(message_of(row), reactors)
        return Referred(found, {p: self.positions[p] for p in places if p in self.positions})

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

    def _table(self, name: str) -> dict[Row, Row]:
        return self.tables.setdefault(name, {})

    def _write(self, pending: Pending) -> None:
        for month, rows in pending.messages.items():
            for row in rows:
                if self.rows.setdefault(row[0], row) != row:
                    self.overwritten.append(row)
                old = self.heads.get(row[2], Conversation())
                self.heads[row[2]] = Conversation(old.max_seq, old.max_rev, month)
        for changed in pending.changes.values():
            self.rows.update(changed)
        for key, digest, msg_id, seq in pending.keys:
            self.answers[key] = Answer(digest, msg_id, seq)
        for conversation_id, head in pending.heads.items():
            self.heads[conversation_id] = Conversation(
                head.max_seq,
                head.max_rev,
                self.heads[conversation_id].month,
                head.message_rev,
                head.members_version,
                head.max_uuid,
            )
        for place, moved in pending.positions.items():
            self.positions[place] = Position(*moved[2:])
        for name, keys in pending.removals.items():
            table = self._table(name)
            for row in [r for k in keys for r in table if r[: len(k)] == k]:
                table.pop(row, None)
        for name, additions in pending.additions.items():
            self._table(name).update(additions)

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

    async def put(self, effects: Iterable[Effect]) -> None:
        del effects
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
        self.works_on: Store = self.store
        self.hot: Hot = NoCache(self.chance)
        self.answers: dict[str, set[bytes]] = {}
        self.pushed: set[bytes] = set()
        self.too_early: list[str] = []
        self.bus.listen("_INBOX.e.>", self._answered)
        self.bus.listen("im.v1.user.*", self._pushed)
        self._asked = 0
        self._seen: list[tuple[str, str]] = [("77", "p_1_2")]
        self.poison = 0

    def append(self) -> None:
        """A message, often a repeat, sometimes with another content; a change of one that was pushed; sometimes
        nonsense.
        """
        self.clock += self.chance.randrange(-1, 3)
        if self.chance.random() < 0.03:
            self.poison += 1
            self.log.put(REQUESTS, self.chance.randrange(PARTITIONS), b"nonsense")
            return
        self._asked += 1
        if self.chance.random() < 0.5:
            msg_id, conversation_id = self.chance.choice(self._seen[-6:])
            request: AnyRequest = self._change(msg_id)
            if self.chance.random() < 0.1:
                conversation_id = "p_1_2"
        else:
            request = self._message()
            conversation_id = self.chance.choice(["p_1_2", "p_1_2", "p_1_3", "p_4_5"])
        request = msgspec.structs.replace(
            request,
            conversation_id=conversation_id,
            user_id=int(self.chance.choice(conversation_id.split("_")[1:])),
            reply=f"_INBOX.e.{'x' * 22}.{self._asked}",
        )
        self.log.append(REQUESTS, request.conversation_id, msgspec.json.encode(request))

    def _message(self) -> SendRequested:
        name = f"m{self.chance.randrange(12)}"
        if self.chance.random() < 0.5:  # these grow, as UUIDs of several clocks do
            name = uuid7(self._asked // 12 + self.chance.randrange(4))
        return SendRequested(
            **NOBODY,
            client_msg_id=name,
            msg_type=1,
            content="x" if self.chance.random() < 0.9 else "y",
            mentions=[1, "all"] if self.chance.random() < 0.2 else [],
        )

    def _change(self, msg_id: str) -> AnyRequest:
        chance = self.chance
        remove = chance.random() < 0.4
        seq = chance.randrange(30)
        choices: list[Callable[[], AnyRequest]] = [
            lambda: RecallRequested(**NOBODY, msg_id=msg_id, window_ms=40),
            lambda: EditRequested(**NOBODY, msg_id=msg_id, content=chance.choice("xyz")),
            lambda: EditRequested(**NOBODY, msg_id=msg_id, content="z", mentions=[2]),
            lambda: ReactRequested(
                **NOBODY, msg_id=msg_id, emoji=chance.choice("ab"), remove=remove
            ),
            lambda: ReactRequested(
                **NOBODY, msg_id=msg_id, emoji=chance.choice("ab"), remove=remove
            ),
            lambda: PinRequested(**NOBODY, msg_id=msg_id, remove=remove),
            lambda: ReadRequested(**NOBODY, seq=seq),
            lambda: DeliveredRequested(**NOBODY, seq=seq),
        ]
        return chance.choice(choices)()

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
            self.works_on, self.hot, self.bus, self.log,
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
            await self.pause()
        left = owners
        while left:
            for task in left:
                task.cancel()  # again and again: `wait_for` of Python 3.11 can swallow one
            _, left = await asyncio.wait(left, timeout=1)
        await asyncio.gather(*owners, *crashed, return_exceptions=True)
        task = self.start()
        while self._behind():
            await asyncio.sleep(0.001)
            if task.done():
                await task
        await self.last.stop()
        await task

    async def pause(self) -> None:
        """Between two records."""
        for _ in range(self.chance.randrange(6)):
            await asyncio.sleep(0)

    def _behind(self) -> bool:
        newest = {r.partition: r.offset + 1 for r in self.log.records(REQUESTS)}
        return any(self.store.progress.get(p, Progress()).next < end for p, end in newest.items())

    def reference(self) -> dict[str, Effect]:
        """What the log means: the pure rules, applied to all of it once. By reply."""
        states: dict[int, State] = {}
        effects: dict[str, Effect] = {}
        self.store_meant = MemoryStore(random.Random(0))
        for record in self.log.records(REQUESTS):
            state = states.setdefault(record.partition, State(record.partition, Progress()))
            entry = prepare(record)
            if entry.request is None:
                continue
            state.conversations.setdefault(entry.request.conversation_id, Conversation())
            effect = core.apply(state, entry)
            pending = Pending(Progress())
            pending.add([effect], state.progress)
            self.store_meant._write(pending)
            effects[entry.request.reply] = effect
        return effects

    def violations(self) -> list[str]:
        """What the promises forbid."""
        effects = self.reference()
        found = list(self.too_early)
        if self.store.overwritten:
            found.append("a row changed")
        meant = self.store_meant
        parts = ("rows", "answers", "heads", "positions")
        found += [p for p in parts if getattr(self.store, p) != getattr(meant, p)]
        names = self.store.tables.keys() | meant.tables.keys()
        found += [n for n in names if self.store._table(n) != meant._table(n)]
        seqs: dict[str, list[int]] = {}
        for row in sorted(self.store.rows.values()):
            seqs.setdefault(row[2], []).append(row[10])
        if any(numbers != list(range(1, len(numbers) + 1)) for numbers in seqs.values()):
            found.append(f"gaps: {seqs}")
        for conversation_id, head in self.store.heads.items():
            reads = sum(
                p.read_rev > 0 for (_, c), p in self.store.positions.items() if c == conversation_id
            )
            changes = [r[1] for r in self.store._table("message_change") if r[0] == conversation_id]
            if reads == 0 and sorted(changes) != list(range(1, head.max_rev + 1)):
                found.append(f"gaps in the changes: {changes}")
        for reply, answers in self.answers.items():
            effect = effects[reply]
            if answers != {getattr(effect, "ack", None)}:
                found.append(f"{effect} was answered as {answers}")
        found += self._wrong_pushes(effects.values())
        facts: list[tuple[str, int, int]] = []
        for record in self.log.records(EVENTS):
            data = json.loads(record.value)["data"]
            fact = (data["conversation_id"], data["seq"], data.get("rev", 0))
            if fact not in facts:
                facts.append(fact)
        wanted = {
            (e.request.conversation_id, e.seq, e.rev if type(e) is Changed else 0)
            for e in effects.values()
            if isinstance(e, Accepted | Changed)
        }
        if missing := {f for f in wanted - set(facts) if f[2]}:
            found.append(f"facts are missing: {missing}")
        if {f[:2] for f in wanted} != {f[:2] for f in facts}:
            found.append("facts are not what is stored")
        if len({r.value for r in self.log.records(DEAD)}) != self.poison:
            found.append("poison is not in the dead letters")
        return found

    def _wrong_pushes(self, effects: Iterable[Effect]) -> list[str]:
        frames: set[bytes] = set()
        optional: set[bytes] = set()
        messages: dict[int, bytes] = {}
        for effect in effects:
            if type(effect) is Accepted:
                messages[effect.row[0]] = effect.message
            elif type(effect) is Changed:
                frames.add(effect.frame)
                if effect.kind == "recalled":  # within a batch the message itself is the tombstone
                    optional |= {
                        message_frame(effect.message),
                        message_frame(messages[effect.msg_id]),
                    }
                    messages.pop(effect.msg_id)
            elif type(effect) is Moved:
                (frames if effect.read else optional).add(effect.frame)
        frames |= {message_frame(message) for message in messages.values()}
        found = [f"not pushed: {frame!r}" for frame in frames - self.pushed]
        return found + [f"pushed: {frame!r}" for frame in self.pushed - frames - optional]

    def _answered(self, subject: str, _reply: str, payload: bytes, headers: bytes) -> None:
        if headers:
            return
        self.answers.setdefault(subject, set()).add(payload)
        answer = json.loads(payload)
        if (
            "client_msg_id" not in answer
            and answer.get("rev", 0)
            > self.store.heads.get(answer["conversation_id"], Conversation()).max_rev
        ):
            self.too_early.append(f"answered before it was stored: {answer}")

    def _pushed(self, _subject: str, _reply: str, payload: bytes, _headers: bytes) -> None:
        frame = json.loads(payload)
        if frame["type"] == "message":
            self._seen.append((frame["data"]["msg_id"], frame["data"]["conversation_id"]))
        if frame["type"] != "head":
            self.pushed.add(payload)


def uuid7(n: int) -> str:
    return f"01937c5e-8f3a-7cc1-9d0e-{n:012x}"


def message_frame(message: bytes) -> bytes:
    return b'{"type":"message","data":%b}' % message


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


class NoMaxUuid(MemoryStore):
    async def load(
        self, expected: Mapping[int, AbstractSet[Progress]], ids: list[str], keys: list[bytes]
    ) -> Loaded:
        loaded = await super().load(expected, ids, keys)
        for conversation in loaded.conversations.values():
            conversation.max_uuid = ""
        return loaded


class NoRows(MemoryStore):
    def _write(self, pending: Pending) -> None:
        if self.chance.random() < 0.9:
            super()._write(pending)


@pytest.mark.parametrize(
    "store", [NoCompareAndSet, StaleLoad, ProgressFirst, NoLookUp, NoMaxUuid, NoRows]
)
async def test_the_checks_catch_a_broken_store(store: type[MemoryStore]) -> None:
    # A stale load does harm in one history of some hundreds.
    assert await broken(store, seeds=1_500)


async def test_the_checks_catch_a_number_that_is_not_of_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks = iter(range(EPOCH_MS + 10_000, EPOCH_MS + 10_000_000))

    def by_own_clock(state: State, entry: Entry) -> Effect:
        record = msgspec.structs.replace(entry.record, ms=next(ticks))
        return genuine(state, msgspec.structs.replace(entry, record=record))

    genuine = core.apply
    monkeypatch.setattr(shell, "apply", by_own_clock)
    assert await broken()


async def test_the_checks_catch_a_forgotten_pending_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = owned._forget_oldest
    monkeypatch.setattr(
        owned, "_forget_oldest", lambda cache, most, _: genuine(cache, most, 1 << 60)
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


async def test_the_checks_catch_an_ack_of_a_change_before_its_commit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def publish_and_answer(publisher: Publisher, effects: list[Effect]) -> None:
        publish(publisher, effects)
        changes = [e for e in effects if isinstance(e, Changed | Moved) and e.request.reply]
        publisher.answer([Answered(e.request.reply, e.ack) for e in changes])

    publish = Publisher.publish
    monkeypatch.setattr(Publisher, "publish", publish_and_answer)
    assert any("answered before it was stored" in found for found in await broken())
