"""The timeline's shell: reads the log, lets the core decide, and carries out what it decided.

Per batch: load → apply → hot cache → publish → facts into the outbox → into the pending transaction, which a second
task commits once the log has the facts; acks of changes go out after that. A crash at
any point only repeats: nothing is numbered but by `core.apply`, and a new owner starts at the last COMMIT.

Two locks: `_step` lets a batch be finished before its partition is given up; `_sql` lets commits and claims follow one
another. A load does not wait for a commit, which would keep acks waiting for the disk: it may see `log_progress` as of
before or after it, but not as another owner has left it.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from functions.timeline import tracing
from functions.timeline.changes import strip
from functions.timeline.clashes import ClashError
from functions.timeline.core import apply, prepare
from functions.timeline.heads import Heads
from functions.timeline.hot import Hot
from functions.timeline.metrics import Counters
from functions.timeline.outbox import Outbox
from functions.timeline.owned import Owned, load
from functions.timeline.pending import Pending
from functions.timeline.publish import Publisher
from functions.timeline.state import Dead, Effect, Entry
from functions.timeline.store import FencedError, Store
from shared.bus import Bus
from shared.ids import month_of, now_ms
from shared.log import LogReader, LogWriter, Record
from shared.patience import patiently

log = logging.getLogger(__name__)

MAX_BATCH = 500
COMMIT_RECORDS = 1_000
COMMIT_S = 0.05
"""Within it what an ack waits for is on its way to SQL; the rest, which the log has, within twice as long."""
MAX_PENDING = 4_000
"""Records applied and not stored; with more, the log is not read on."""
MAX_CONVERSATIONS = 100_000
MAX_ANSWERS = 20_000
"""What stays in memory after it is stored, of all partitions."""

At = Callable[[str], None]
"""Called at "applied", "published" and "committed": where a crash is worth a test."""


class Timeline:
    """The owner of its partitions (`shared.log.Owner`). `run` works until `stop` or a failure."""

    def __init__(
        self,
        store: Store,
        hot: Hot,
        bus: Bus,
        writer: LogWriter,
        *,
        at: At = lambda _: None,
        commit_s: float = COMMIT_S,
        max_conversations: int = MAX_CONVERSATIONS,
        max_answers: int = MAX_ANSWERS,
    ) -> None:
        self.counters = Counters()
        self._store = store
        self._hot = hot
        self._bus = bus
        self._at = at
        self._commit_s = commit_s
        self._max_conversations = max_conversations
        self._max_answers = max_answers
        self._publisher = Publisher(bus, self.counters)
        self._outbox = Outbox(writer, self.counters)
        self._heads = Heads(
            self._publisher.head,
            lambda progress: patiently(lambda: store.lately(progress), self.counters),
        )
        self._owned: dict[int, Owned] = {}
        self._reader: LogReader | None = None
        self._stopping = False
        self._left = asyncio.Event()
        self._step = asyncio.Lock()
        self._sql = asyncio.Lock()
        self._something = asyncio.Event()
        self._plenty = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def run(self, reader: LogReader) -> None:
        """Works until `stop`. Raises whatever is a defect: a new process starts at the last COMMIT."""
        self._reader = reader
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(self._commit_forever()),
                tasks.create_task(self._heads.run()),
            ]
            while not self._stopping:
                await self._room.wait()
                records = await reader.read(MAX_BATCH)
                await self._apply_batch(self._entries(records))
            await self._left.wait()
            for task in background:
                task.cancel()

    async def stop(self) -> None:
        """Finishes the batch, stores everything, leaves the log and sends the heads that are due later."""
        self._stopping = True
        if self._reader is not None:
            await self._reader.close()
        self._heads.sweep()
        self._left.set()

    async def assigned(self, partitions: frozenset[int]) -> Mapping[int, int]:
        """See `shared.log.Owner.assigned`."""
        async with self._step, self._sql:
            return await self._claim(partitions)

    async def revoked(self, partitions: frozenset[int]) -> None:
        """See `shared.log.Owner.revoked`."""
        async with self._step:
            await self._commit()
            for partition in partitions:
                self._owned.pop(partition, None)

    def _entries(self, records: Iterable[Record]) -> list[tuple[Owned, Entry]]:
        """Binds records to the state that they were read for: a partition may be lost, and claimed again from another
        position, while they wait for a lock.
        """
        owned = self._owned
        return [(owned[r.partition], prepare(r)) for r in records if r.partition in owned]

    async def _apply_batch(self, entries: list[tuple[Owned, Entry]]) -> None:
        if not entries:
            return
        spans = tracing.begin(entry for _, entry in entries)
        async with self._step:
            results = await self._load_and_apply(entries)
            self._at("applied")
            effects = [effect for batch in results.values() for effect in batch]
            effects = strip(effects)
            await self._hot.put(effects)
            self._publisher.publish(effects)
            self._outbox.add(effects)
            self._at("published")
            for owned, batch in results.items():
                owned.pending.add(batch, owned.state.progress)
                owned.pending.traced += tracing.finish(spans, batch)
                share = len(self._owned)
                owned.evict(self._max_conversations // share, self._max_answers // share)
        self.counters.records += len(effects)
        waiting = sum(owned.pending.records for owned in self._owned.values())
        if waiting >= MAX_PENDING:
            self._room.clear()
        if waiting >= COMMIT_RECORDS:
            self._plenty.set()
        self._something.set()

    async def _load_and_apply(
        self, entries: list[tuple[Owned, Entry]]
    ) -> dict[Owned, list[Effect]]:
        """Nothing is evicted and no other record applied between the load and the last `apply`."""
        entries = self._still_owned(entries)
        while True:
            try:
                await load(self._store, entries, self.counters)
            except FencedError as error:
                async with self._sql:
                    mine = {owned.state.partition for owned, _ in self._still_owned(entries)}
                    if lost := error.partitions & mine:
                        await self._lose(FencedError(lost))
            loaded, entries = entries, self._still_owned(entries)
            if len(entries) == len(loaded):
                break
        results: dict[Owned, list[Effect]] = {}
        for owned, entry in entries:
            results.setdefault(owned, []).append(apply(owned.state, entry))
        return results

    def _still_owned(self, entries: list[tuple[Owned, Entry]]) -> list[tuple[Owned, Entry]]:
        """Without those of partitions that were lost meanwhile."""
        owned_now = self._owned
        return [e for e in entries if owned_now.get(e[0].state.partition) is e[0]]

    async def _commit_forever(self) -> None:
        me = asyncio.current_task()
        # Python 3.11's `wait_for`, which the bus waits with, can swallow a cancellation: this loop would never end.
        while me is None or not me.cancelling():
            await self._something.wait()
            for _ in range(2):
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._commit_s):
                        await self._plenty.wait()
                if self._plenty.is_set() or self._awaited():
                    break
            await self._commit()

    def _awaited(self) -> bool:
        """Whether anybody waits for the next COMMIT."""
        return any(owned.pending.answers for owned in self._owned.values())

    async def _commit(self) -> None:
        """Stores all that is pending."""
        async with self._sql:
            self._something.clear()
            self._plenty.clear()
            batch = {p: owned.pending for p, owned in self._owned.items() if owned.pending.records}
            for partition, pending in batch.items():
                owned = self._owned[partition]
                owned.pending = Pending(pending.new)
                owned.committing = pending.new
                owned.known.add(pending.new)
            if batch:
                await self._prepare_commit(batch)
                await self._store_batch(batch)
                self._stored(batch)
                self._at("committed")
                assert self._reader is not None
                await self._reader.stored({p: pending.new.next for p, pending in batch.items()})
            self._room.set()

    async def _prepare_commit(self, batch: Mapping[int, Pending]) -> None:
        """What must be done before the log is read no more from here: facts and dead letters kept, pushes out of our
        buffers.
        """
        for pending in batch.values():
            for dead in pending.dead:
                await self._outbox.bury(dead)
        await self._outbox.flush()
        try:
            await self._bus.flush()
        except Exception as error:  # noqa: BLE001 - the client's many ways to say that the server is away
            log.warning("pushes may be lost: %s", str(error) or type(error).__name__)
        months = {m for p in batch.values() for m in p.messages}
        await patiently(lambda: self._store.ensure_months(months), self.counters)

    async def _store_batch(self, batch: dict[int, Pending]) -> None:
        while batch:
            try:
                await patiently(lambda: self._store.commit(batch), self.counters)
                return
            except FencedError as error:
                for partition in error.partitions:
                    batch.pop(partition)
                await self._lose(error)
            except ClashError as error:
                for partition, ids in error.clashes.items():
                    await self._bury_clashes(batch[partition], partition, ids, error.reason)

    def _stored(self, batch: Mapping[int, Pending]) -> None:
        for partition, pending in batch.items():
            owned = self._owned[partition]
            owned.committed = pending.new
            self._publisher.answer(pending.answers)
            self._heads.stored(pending)
            self.counters.rows += len(pending.keys)
        self.counters.commits += 1

    async def _claim(self, partitions: Iterable[int]) -> dict[int, int]:
        """Takes partitions over as SQL has them. Returns where to read on, without a turn of the loop in between."""
        wanted = frozenset(partitions)
        await patiently(lambda: self._store.ensure_months({month_of(now_ms())}), self.counters)
        progress = await patiently(lambda: self._store.claim(wanted), self.counters)
        self._heads.claimed(progress)
        self._owned.update({p: Owned(p, progress[p]) for p in wanted})
        return {p: progress[p].next for p in wanted}

    async def _lose(self, error: FencedError) -> None:
        """Another owner was quicker: forgets all of these partitions and reads them again from where SQL is now."""
        log.warning("%s; starting over there", error)
        self.counters.fenced += len(error.partitions)
        assert self._reader is not None
        self._reader.seek(await self._claim(error.partitions))

    async def _bury_clashes(
        self, pending: Pending, partition: int, ids: set[int], why: str
    ) -> None:
        """A message that was acked and cannot be stored: must never happen, must never go unseen."""
        for row in pending.rows_of(ids):
            reason = f"message {row[0]} (seq {row[10]} of {row[2]}) was acked, but {why}"
            log.error("ALARM: %s", reason)
            self.counters.clashes += 1
            record = Record(partition, pending.new.next, 0, repr(row).encode())
            await self._outbox.bury(Dead(record, reason))
        pending.drop(ids)
