"""Fetch sessions (KIP-227) for aiokafka's consumer: a request names only the partitions that moved on.

aiokafka lists all partitions in every request and reads all of them back from every answer. With 64 partitions and
small batches that is a third of the timeline's time, and much of the broker's. It leans on private names of aiokafka,
whose version the locks pin; `tests/contract/test_log.py` checks on a real broker that it works, and that it is used.
"""

from collections.abc import Iterable
from io import BytesIO
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.protocol.api import Request
from aiokafka.protocol.fetch import FetchRequest_v7, FetchResponse_v7

PAUSE_EACH_S = 0.5e-6
PAUSE_MOST_S = 0.005
"""From the moment when an answer was read until the next request, for each byte of it: so long records gather at the
broker, which cost their reader, and everybody behind him, less together.
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


class _Fetch(Request[FetchRequest_v7]):  # type: ignore[misc]
    """One request of a session. `topics`: afterwards the partitions that the answer is about, with their offsets."""

    API_KEY = FetchRequest_v7.API_KEY

    def __init__(
        self, session: _Session, moved: Iterable[TopicPartition], limits: tuple[int, ...], most: int
    ) -> None:
        self.answered = False
        self.topics: list[tuple[str, list[tuple[int, int, int]]]] = []
        self._session = session
        self._moved = moved
        self._limits = limits
        self._most = most

    def build(self, struct: type[FetchRequest_v7]) -> FetchRequest_v7:
        """The request on the wire; for a new session with all of its partitions."""
        session = self._session
        topics: dict[str, list[tuple[int, int, int, int]]] = {}
        for tp in self._moved:
            topics.setdefault(tp.topic, []).append(
                (tp.partition, session.offsets[tp], -1, self._most)
            )
        request = struct(-1, *self._limits, session.id, session.epoch, list(topics.items()), [])
        request.RESPONSE_TYPE = self  # the session sees the answer before the fetcher does
        return request

    def decode(self, data: BytesIO) -> FetchResponse_v7:
        """Reads the answer. Unless all of it is good, `answered` stays False and a new session has to be begun."""
        response = FetchResponse_v7.decode(data)
        session = self._session
        errors = response.error_code
        session.answered = []
        session.pause = min(data.getbuffer().nbytes * PAUSE_EACH_S, PAUSE_MOST_S)
        for topic, partitions in response.topics:
            known = []
            for partition, error, *_ in partitions:
                tp = TopicPartition(topic, partition)
                session.answered.append(tp)
                known.append((partition, session.offsets[tp], 0))
                errors = errors or error
            self.topics.append((topic, known))
        session.id = response.session_id
        session.epoch = session.epoch % _LAST_EPOCH + 1
        self.answered = not errors and session.id != 0
        return response


class SessionFetcher(Fetcher):  # type: ignore[misc]
    """aiokafka's Fetcher, which keeps a session with every broker while nothing out of the ordinary happens.

    Whatever does (a new assignment, a seek, an error) ends it: aiokafka's own requests sort that out, and where one of
    them lists all that a broker leads it becomes the first of the next session.
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
            if now >= session.due:
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
        try:
            return bool(await super()._proc_fetch_request(assignment, node, request))
        finally:
            if isinstance(request, _Fetch) and not request.answered:
                self._sessions.pop(node, None)


def keep_sessions(consumer: AIOKafkaConsumer) -> None:
    """To be called when a consumer has started and has no partitions yet."""
    # Its fetcher runs already, and waits for an assignment: it goes on as one that keeps sessions.
    consumer._fetcher.__class__ = SessionFetcher  # noqa: SLF001
