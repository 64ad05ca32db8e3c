"""What the edge asks functions for itself: who is in which group, which sessions have ended; and what it reports.

Many are asked about at a time. Questions go the way of all commands, as user 0, and are counted like them.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import msgspec

from edge.road import Road, identity, new_trace_id
from schemas.commands import AUTH_CHECK, GROUP_AMONG, GROUP_MEMBERSHIPS, PRESENCE_REPORT, Command
from schemas.internal import (
    MOST_ASKED,
    Among,
    CheckSessions,
    EndedSessions,
    GetAmong,
    GetMemberships,
    Membership,
    Memberships,
    SessionOf,
)
from schemas.presence import PresenceReported, ReportPresence
from schemas.types import Model
from shared import subjects

T = TypeVar("T")

USERS_AT_ONCE = 100
"""Users of one question for memberships: the answer for people in hundreds of groups still fits into one message."""
PARALLEL = 8
"""Questions under way when all users of this process are asked about."""

_NOBODY = identity(None)
_encode = msgspec.json.encode
_decode_memberships = msgspec.json.Decoder(Memberships).decode
_decode_among = msgspec.json.Decoder(Among).decode
_decode_reported = msgspec.json.Decoder(PresenceReported).decode
_decode_ended = msgspec.json.Decoder(EndedSessions).decode


class NotKnownError(Exception):
    """Nobody could tell right now."""


class Directory:
    """Asks by `Road`. All methods raise NotKnownError if there is no answer, or none that is understood."""

    def __init__(self, road: Road) -> None:
        self._road = road
        self._free = asyncio.Semaphore(PARALLEL)

    async def memberships(self, user_ids: Sequence[int]) -> dict[int, list[Membership]]:
        """The groups of at most USERS_AT_ONCE users."""
        async with self._free:
            body = await self._ask(GROUP_MEMBERSHIPS, GetMemberships(list(user_ids)))
        found = _decoded(_decode_memberships, body).memberships
        return {one.user_id: one.groups for one in found}

    async def among(self, group_id: int, user_ids: Sequence[int]) -> Among:
        """Which of these are members. Of several answers' versions it is the oldest: all of it is right as of that."""
        answers = [
            _decoded(_decode_among, await self._ask(GROUP_AMONG, GetAmong(group_id, part)))
            for part in parts(user_ids, MOST_ASKED)
        ]
        return Among(
            min(answer.members_version for answer in answers),
            [user_id for answer in answers for user_id in answer.user_ids],
        )

    async def ended(self, sessions: Sequence[SessionOf]) -> list[SessionOf]:
        """Which of at most MOST_ASKED sessions have ended."""
        body = await self._ask(AUTH_CHECK, CheckSessions(list(sessions)))
        return _decoded(_decode_ended, body).ended

    async def report(self, report: ReportPresence) -> bool:
        """Tells which connections are here. Returns whether this edge is known; otherwise all is to be told again."""
        return _decoded(_decode_reported, await self._ask(PRESENCE_REPORT, report)).known

    def farewell(self, report: ReportPresence) -> None:
        """A report whose answer nobody waits for."""
        self._road.ask(
            PRESENCE_REPORT, subjects.NOBODY, _encode(report), _NOBODY, lambda _answer: None
        )

    async def _ask(self, command: Command, question: Model) -> bytes:
        answer = await self._road.request(
            command, subjects.NOBODY, _encode(question), _NOBODY, new_trace_id()
        )
        if answer.status:
            raise NotKnownError(f"{command.type}: {answer.code}")
        return answer.body


def parts(items: Iterable[T], most: int) -> list[list[T]]:
    """Lists of at most `most` items each."""
    whole = list(items)
    return [whole[i : i + most] for i in range(0, len(whole), most)]


def _decoded(decode: Callable[[bytes], T], body: bytes) -> T:
    try:
        return decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise NotKnownError(str(error)[:200]) from None
