"""Receiving: one timeline per conversation, gaps pulled, everything missed caught up, events queued for the reader."""

import asyncio
import logging
from collections import deque
from typing import NamedTuple, Protocol

from clients.python.natterjack.backoff import Backoff
from clients.python.natterjack.changes import CHANGES
from clients.python.natterjack.errors import ApiError, ClientClosed, SessionEnded
from clients.python.natterjack.events import (
    ConversationUpdated,
    Event,
    MessageChanged,
    MessageReceived,
    Pushed,
    ReadMoved,
    Typing,
)
from clients.python.natterjack.frames import Frame, Reply, decode_reply
from clients.python.natterjack.positions import Reached
from clients.python.natterjack.timeline import Timeline
from schemas.events import Change, ConversationChanged, Head, Read, TypingPushed
from schemas.messages import (
    GetHistory,
    History,
    Message,
    Position,
    Sync,
    Synced,
    SyncedConversation,
)
from schemas.types import Model

GRACE_S = 0.05
"""A gap may close by itself: the ack of an own message takes a way of its own. Wait this long before pulling."""
PULLS = 4
"""Conversations pulled at once: the server takes 64 commands in flight per connection."""
MAX_POSITIONS = 500
"""Positions that one `message.sync` may name."""

log = logging.getLogger(__name__)


class Request(Protocol):
    """Carries out a command, over reconnects, until there is an answer."""

    async def __call__(self, command: Model, reply: type[Reply]) -> Reply:
        """Raises: ApiError for a final error; ClientClosed, SessionEnded, Unauthenticated at the end."""
        ...


class Entry(NamedTuple):
    """One place in the queue: what the reader gets, if anything, and how far he is when he has handled it."""

    event: Event | None
    conversation_id: str | None = None
    reached: Reached = Reached()


class Receiver:
    """State of everything received.

    positions: where an earlier run stopped; None on a new device, which then starts with the `newest` messages of
    each conversation (None: with all).
    capacity: events queued at most. When the reader is slower, nothing more is pulled or released until he has
    caught up; what the server pushes meanwhile is only remembered as existing, and pulled then.
    """

    def __init__(
        self,
        request: Request,
        positions: dict[str, Reached] | None,
        *,
        newest: int | None,
        capacity: int,
        backoff: Backoff,
    ) -> None:
        self._request = request
        self._newest = newest if positions is None else None
        self._capacity = capacity
        self._backoff = backoff
        self._timelines = {
            conversation: Timeline(conversation, seq, rev)
            for conversation, (seq, rev, _) in (positions or {}).items()
        }
        self._own_reads = {c: reached.read for c, reached in (positions or {}).items()}
        self.user_id = 0
        """One's own number; known before anything is received."""
        self._queue: deque[Entry] = deque()
        self._arrived = asyncio.Event()
        self._stalled: dict[str, Timeline] = {}
        self._pulls: dict[str, asyncio.Task[None]] = {}
        self._pull_slots = asyncio.Semaphore(PULLS)
        self._sync_wanted = asyncio.Event()
        self._end: Exception | None = None

    async def next(self) -> Entry:
        """The next entry. Raises: what `end` was given, after the last one."""
        while not self._queue:
            if self._end is not None:
                raise self._end
            self._arrived.clear()
            await self._arrived.wait()
        entry = self._queue.popleft()
        if self._stalled and len(self._queue) <= self._capacity // 2:
            stalled, self._stalled = self._stalled, {}
            for timeline in stalled.values():
                self._settle(timeline)
        return entry

    def end(self, error: Exception) -> None:
        """Nothing more will come, because of `error`."""
        self._end = error
        self._arrived.set()

    def notice(self, event: Event) -> None:
        """Queues an event that has no place in a conversation; a reader who is far behind does not get it."""
        if self._room() > 0:
            self._put(Entry(event))

    def push(self, frame: Frame) -> None:
        """Takes a push from the server."""
        try:
            if frame.type == "message":
                self.add(decode_reply(frame.data, Message))
            elif frame.type == "head":
                head = decode_reply(frame.data, Head)
                self.head(head.conversation_id, head.seq, head.rev)
            elif frame.type in CHANGES:
                self._change(decode_reply(frame.data, CHANGES[frame.type]))
            elif frame.type == "read":
                read = decode_reply(frame.data, Read)
                timeline = self._timeline(read.conversation_id, newest_seq=read.seq)
                self._read(timeline, read.user_id, read.seq, read.rev)
                self._settle(timeline)
            elif frame.type == "conversation":
                state = decode_reply(frame.data, ConversationChanged)
                timeline = self._timeline(state.conversation_id, newest_seq=state.max_seq)
                timeline.skip(state.cleared_seq)
                self.notice(ConversationUpdated(state))
                self._settle(timeline)
            elif frame.type == "typing":
                typing = decode_reply(frame.data, TypingPushed)
                if typing.user_id != self.user_id:  # in a group one hears oneself
                    self.notice(Typing(typing.conversation_id, typing.user_id, typing.typing))
            else:
                self.notice(Pushed(frame.type, frame.data))
        except ApiError as error:
            log.warning("push dropped: %s", error)  # a later `head` makes up for it

    def add(self, message: Message) -> None:
        """Takes a message that was pushed, or an own one that was acked."""
        timeline = self._timeline(message.conversation_id, newest_seq=message.seq - 1)
        timeline.add(message)
        self._settle(timeline)

    def head(self, conversation_id: str, seq: int, rev: int = 0) -> None:
        """Learns how far a conversation is."""
        timeline = self._timeline(conversation_id, newest_seq=seq)
        timeline.head(seq, rev)
        self._settle(timeline)

    def catch_up(self) -> None:
        """Pushes may have been missed: asks the server for everything newer than what is here."""
        self._sync_wanted.set()

    async def run(self) -> None:
        """Carries out what `catch_up` asks for, one after the other."""
        attempt = 0
        while True:
            await self._sync_wanted.wait()
            self._sync_wanted.clear()
            try:
                await self._sync()
                attempt = 0
            except ApiError as error:
                log.warning("catching up failed, will be tried again: %s", error)
                await asyncio.sleep(self._backoff.delay_s(attempt))
                attempt += 1
                self._sync_wanted.set()

    async def close(self) -> None:
        """Stops pulling."""
        pulls = list(self._pulls.values())
        for pull in pulls:
            pull.cancel()
        await asyncio.gather(*pulls, return_exceptions=True)

    def _put(self, entry: Entry) -> None:
        self._queue.append(entry)
        self._arrived.set()

    def _room(self) -> int:
        return self._capacity - len(self._queue)

    def _timeline(self, conversation_id: str, newest_seq: int) -> Timeline:
        """The timeline. On a new device it starts `newest` messages before `newest_seq`."""
        timeline = self._timelines.get(conversation_id)
        if timeline is None:
            start = 0 if self._newest is None else max(0, newest_seq - self._newest)
            timeline = Timeline(conversation_id, start)
            if start:
                self._put(Entry(None, conversation_id, Reached(start)))
            self._timelines[conversation_id] = timeline
        return timeline

    def _settle(self, timeline: Timeline) -> None:
        """Releases what is next in order, and sees to what is missing."""
        for message in timeline.release(self._room()):
            reached = Reached(message.seq)
            self._put(Entry(MessageReceived(message), timeline.conversation_id, reached))
        if not timeline.behind:
            return
        conversation_id = timeline.conversation_id
        if self._room() <= 0:
            self._stalled[conversation_id] = timeline
        elif timeline.missing is not None and conversation_id not in self._pulls:
            pull = asyncio.create_task(self._pull(timeline), name=f"pull {conversation_id}")
            self._pulls[conversation_id] = pull

    def _change(self, change: Change) -> None:
        timeline = self._timeline(change.conversation_id, newest_seq=change.seq)
        if (message := timeline.change(change)) is not None:
            entry = Entry(
                MessageChanged(message), timeline.conversation_id, Reached(rev=change.rev)
            )
            self._put(entry)
        self._settle(timeline)

    def _read(self, timeline: Timeline, user_id: int, seq: int, rev: int | None = None) -> None:
        if not timeline.read(user_id, seq, rev):
            return
        conversation_id = timeline.conversation_id
        own = seq if user_id == self.user_id else 0
        if own:
            self._own_reads[conversation_id] = own
        if self._room() > 0:  # a later position makes up for it
            reached = Reached(rev=timeline.rev, read=own)
            self._put(Entry(ReadMoved(conversation_id, user_id, seq), conversation_id, reached))

    def _page(self, timeline: Timeline, page: History | SyncedConversation) -> None:
        changes = timeline.page(
            page.messages, page.changes, page.max_seq, page.max_rev, page.upto_rev, page.first_seq
        )
        for change in changes:
            reached = Reached(rev=change.rev)
            self._put(Entry(MessageChanged(change), timeline.conversation_id, reached))
        for read in page.reads:
            self._read(timeline, read.user_id, read.seq)
        self._settle(timeline)
        if self._room() > 0:  # else nobody reads, and this would pile up
            self._put(Entry(None, timeline.conversation_id, Reached(timeline.seq, timeline.rev)))

    async def _pull(self, timeline: Timeline) -> None:
        """Pulls until nothing is missing or the reader is too far behind."""
        attempt = 0
        pulled = False
        try:
            await asyncio.sleep(GRACE_S)
            async with self._pull_slots:
                while (missing := timeline.missing) is not None and self._room() > 0:
                    asked = GetHistory(
                        timeline.conversation_id,
                        after_seq=missing.after_seq,
                        after_rev=missing.after_rev,
                        limit=missing.limit,
                    )
                    self._page(timeline, await self._request(asked, History))
                    if timeline.missing == missing:  # the server does not have it yet
                        await asyncio.sleep(self._backoff.delay_s(attempt))
                        attempt += 1
        except ApiError as error:
            log.warning("cannot pull %s: %s", timeline.conversation_id, error)
        except (ClientClosed, SessionEnded):
            pass
        else:
            pulled = True
        finally:
            del self._pulls[timeline.conversation_id]
        if pulled:
            self._settle(
                timeline
            )  # if it stopped because the reader is behind, he takes it up again

    async def _sync(self) -> None:
        cursor: str | None = None
        while True:
            # Pages go by the conversations' ids; those behind the last one named belong to the next page.
            named = sorted(c for c in self._timelines if c > (cursor or ""))[:MAX_POSITIONS]
            timelines = [self._timelines[conversation_id] for conversation_id in named]
            positions = [
                Position(t.conversation_id, t.seq, t.rev, self._own_reads.get(t.conversation_id, 0))
                for t in timelines
            ]
            page = await self._request(Sync(positions, cursor), Synced)
            for synced in page.conversations:
                newest = synced.max_seq
                self._page(self._timeline(synced.conversation_id, newest), synced)
            cursor = page.next
            if cursor is None:
                break
        self._newest = (
            None  # a conversation that appears from now on is new, and wanted from its start
        )
        self._put(Entry(None))
