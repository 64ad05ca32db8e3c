"""Fetch sessions (KIP-227) for aiokafka's consumer: a request names only the partitions that moved on.

aiokafka lists all partitions in every request and reads all of them back from every answer. With 64 partitions and
small batches that is a third of the timeline's time, and much of the broker's. What comes in a session also skips most
of aiokafka's work on each partition and record. It leans on private names of aiokafka, whose version the locks pin;
`tests/contract/test_log.py` checks on a real broker that it works, and that it is used.
"""

import asyncio
import time
from collections.abc import Iterable
from contextlib import suppress
from io import BytesIO
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.errors import KafkaError
from aiokafka.protocol.api import Request
from aiokafka.protocol.fetch import FetchResponse_v7

from shared.adapters.kafka_wire import Answer, Fetched, FetchRequest, decode_answer
from shared.log import Record

PAUSE_EACH_S = 0.5e-6
PAUSE_MOST_S = 0.005
"""From the moment when an answer was read until the next request, for each byte of it: so long records gather at the
broker, which cost their reader, and everybody behind him, less together.
"""
TICK_S = 0.001
"""A shorter pause is none: uvloop counts whole milliseconds, and a timer for less rings at once, again and again until
the next of them has begun.
"""
_LAST_EPOCH = 2**31 - 1


class _Session:
    """What a broker knows of us. `offsets`: of its partitions, as the broker was told last."""

    def __init__(self, offsets: dict[TopicPartition, int]) -> None:
        self.id = 0
        self.epoch = 0
        self.pause = 0.0
        self.due = 0.0
        """When the next request leaves; 0 while there is something unread."""
        self.offsets = offsets
        self.answered: list[TopicPartition] = []
        """Partitions of the last answer: only they can have moved on."""


class _Fetch(Request[FetchRequest]):  # type: ignore[misc]
    """One request of a session, and its answer."""

    API_KEY = FetchRequest.API_KEY

    def __init__(
        self, session: _Session, moved: Iterable[TopicPartition], limits: tuple[int, ...], most: int
    ) -> None:
        self.session = session
        self.answer: Answer | None = None
        """Stays None if it is left to aiokafka."""
        self.topics: list[tuple[str, list[tuple[int, int, int]]]] = []
        """For aiokafka: the partitions that an answer left to it is about, with their offsets."""
        self._moved = moved
        self._limits = limits
        self._most = most

    def build(self, struct: type[FetchRequest]) -> FetchRequest:
        """The request on the wire; for a new session with all of its partitions."""
        session = self.session
        topics: dict[str, list[tuple[int, int, int, int]]] = {}
        for tp in self._moved:
            topics.setdefault(tp.topic, []).append(
                (tp.partition, session.offsets[tp], -1, self._most)
            )
        request = struct(-1, *self._limits, session.id, session.epoch, list(topics.items()), [])
        request.RESPONSE_TYPE = self  # the session sees the answer before the fetcher does
        return request

    def decode(self, data: BytesIO) -> FetchResponse_v7:
        """Reads the answer. What aiokafka gets of it is empty, unless there is anything out of the ordinary in it."""
        session, raw = self.session, data.getvalue()
        self.answer = decode_answer(raw, data.tell())
        if self.answer:
            session.id = self.answer.session
            session.epoch = session.epoch % _LAST_EPOCH + 1
            session.pause = min(len(raw) * PAUSE_EACH_S, PAUSE_MOST_S)
            return FetchResponse_v7(0, 0, session.id, [])
        response = FetchResponse_v7.decode(data)
        for topic, partitions in response.topics:
            known = [(p, session.offsets[TopicPartition(topic, p)], 0) for p, *_ in partitions]
            self.topics.append((topic, known))
        return response


class SessionFetcher(Fetcher):  # type: ignore[misc]
    """aiokafka's Fetcher, which keeps a session with every broker while nothing out of the ordinary happens.

    Whatever does (a new assignment, a seek, an error) ends it: aiokafka's own requests sort that out, and where one of
    them lists all that a broker leads it becomes the first of the next session. What a session brings is kept as
    `Fetched` among aiokafka's own `_records`, where seeks and new assignments remove it.
    """

    _assignment: Any = None
    _sessions: dict[int, _Session]
    """By broker."""

    def seek_to(self, tp: TopicPartition, offset: int) -> None:
        """Also ends the sessions, in which an answer from the old position may be under way."""
        super().seek_to(tp, offset)
        self._sessions = {}

    def _get_actions_per_node(self, assignment: Any) -> Any:
        if assignment is not self._assignment:
            self._assignment = assignment
            self._sessions = {}
        if sum(len(s.offsets) for s in self._sessions.values()) == len(assignment.tps):
            return self._due(assignment)
        requests, *rest = super()._get_actions_per_node(assignment)
        return [(node, self._first(node, request)) for node, request in requests], *rest

    def _due(self, assignment: Any) -> Any:
        """What to send now, and how long to wait if nothing happens."""
        now, timeout = self._loop.time(), self._fetcher_timeout
        requests = []
        for node, session in self._sessions.items():
            if node in self._in_flight or not session.offsets.keys().isdisjoint(self._records):
                session.due = 0.0
                continue
            session.due = session.due or now + session.pause
            if session.due - now < TICK_S:
                requests.append((node, self._next(session, assignment)))
            else:
                timeout = min(timeout, session.due - now)
        return requests, {}, timeout, False, []

    def _first(self, node: int, request: Any) -> Any:
        """A session's first request in place of aiokafka's, if that one lists all that this broker leads."""
        offsets = {
            TopicPartition(topic, partition): offset
            for topic, partitions in request.topics
            for partition, offset, _ in partitions
        }
        leader_of = self._client.cluster.leader_for_partition
        if sum(leader_of(tp) == node for tp in self._assignment.tps) != len(offsets):
            self._sessions.pop(node, None)
            return request
        session = self._sessions[node] = _Session(offsets)
        return self._request(session, offsets)

    def _next(self, session: _Session, assignment: Any) -> _Fetch:
        moved = []
        for tp in session.answered:
            position = assignment.state_value(tp).position
            if position != session.offsets[tp]:
                session.offsets[tp] = position
                moved.append(tp)
        return self._request(session, moved)

    def _request(self, session: _Session, moved: Iterable[TopicPartition]) -> _Fetch:
        limits = (
            self._fetch_max_wait_ms,
            self._fetch_min_bytes,
            self._fetch_max_bytes,
            self._isolation_level,
        )
        return _Fetch(session, moved, limits, self._max_partition_fetch_bytes)

    async def _proc_fetch_request(self, assignment: Any, node: int, request: Any) -> bool:
        """Sends it and keeps what comes; says if there is anything to read."""
        try:
            new = bool(await super()._proc_fetch_request(assignment, node, request))
        finally:
            if isinstance(request, _Fetch) and not (request.answer and request.answer.session):
                self._sessions.pop(node, None)
        if isinstance(request, _Fetch) and request.answer and assignment.active:
            new = self._keep(assignment, request.session, request.answer)
        return new

    def _keep(self, assignment: Any, session: _Session, answer: Answer) -> bool:
        now_ms, new = int(time.time() * 1000), False
        session.answered = []
        for topic, partition, highwater, stable, batches in answer.partitions:
            tp = TopicPartition(topic, partition)
            session.answered.append(tp)
            state, offset = assignment.state_value(tp), session.offsets[tp]
            if not state.has_valid_position or state.position != offset:
                continue  # there was a seek while the answer was under way
            state.highwater, state.lso, state.timestamp = highwater, stable, now_ms
            if batches.has_next():
                self._records[tp] = Fetched(partition, offset, batches)
                new = True
        return new

    async def fetched_records(
        self, partitions: Any, timeout: float, max_records: int
    ) -> dict[TopicPartition, list[Record]]:
        """As aiokafka's, of all partitions, but with our own records."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not (self._records or self._closed):
                    await self._create_fetch_waiter()
        if self._closed:
            return {}
        if self._subscriptions.reassignment_in_progress:
            # Of what is buffered, none may be ours any more.
            await self._subscriptions.wait_for_assignment()
        if taken := self._take(max_records):
            return taken
        theirs = await super().fetched_records(partitions, 0, max_records)
        return {
            tp: [Record(r.partition, r.offset, r.timestamp, r.value) for r in records]
            for tp, records in theirs.items()
        }

    def _take(self, most: int) -> dict[TopicPartition, list[Record]]:
        """Takes what sessions brought, and nothing of what aiokafka's own requests did."""
        if not (self._assignment and self._assignment.active):
            self._records.clear()
        taken: dict[TopicPartition, list[Record]] = {}
        for tp, fetched in list(self._records.items()):
            if not isinstance(fetched, Fetched):
                continue
            state, records = self._assignment.state_value(tp), []
            if state.has_valid_position and state.position == fetched.offset:
                try:
                    records = fetched.take(most)
                except KafkaError:
                    if not taken:
                        raise
                    break  # what was taken is returned first; this comes again
                state.consumed_to(fetched.offset)
            if len(records) < most:
                del self._records[tp]
            if records:
                taken[tp] = records
                most -= len(records)
                if not most:
                    break
        self._notify(self._wait_consume_future)
        return taken


def keep_sessions(consumer: AIOKafkaConsumer) -> None:
    """To be called when a consumer has started and has no partitions yet."""
    # Its fetcher runs already, and waits for an assignment: it goes on as one that keeps sessions.
    consumer._fetcher.__class__ = SessionFetcher  # noqa: SLF001
