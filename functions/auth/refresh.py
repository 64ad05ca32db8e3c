"""The rules of refresh tokens, without I/O: what a presented token means.

A token is `<session>.<generation>.<random>`; only its hash is stored. Each use gives the next
generation. A generation that is over and comes again was copied: the session ends. One exception:
the token used last may be repeated for a moment while its successor is unused, since a client
whose answer was lost has nothing else. Why: docs/adr/0005-refresh-rotation.md.
"""

import enum
import hashlib
import hmac
import secrets

import msgspec

from shared.subjects import is_token

REPEAT_MS = 30_000
LIFETIME_MS = 60 * 24 * 3_600_000


class SessionState(msgspec.Struct, frozen=True):
    """What is stored of a session's tokens.

    generation, refresh_hash: of the newest token. previous_hash: of the token that was used last
    (None: none yet). rotated_ms: when that one was used first. Times in Unix ms.
    """

    session_id: str
    user_id: int
    generation: int
    refresh_hash: bytes
    expires_ms: int
    ended_ms: int | None = None
    previous_hash: bytes | None = None
    rotated_ms: int | None = None


class Meaning(enum.Enum):
    """What a presented token is."""

    NEWEST = enum.auto()
    REPEATED = enum.auto()
    """The one used last, again, soon, and its successor is unused."""
    REUSED = enum.auto()
    """An older one: somebody has a copy."""
    INVALID = enum.auto()


def mint(session_id: str, generation: int) -> str:
    """A new token."""
    return f"{session_id}.{generation}.{secrets.token_urlsafe(32)}"


def digest(token: str) -> bytes:
    """What is stored of a token. It holds 256 random bits: a plain hash suffices."""
    return hashlib.sha256(token.encode()).digest()


def session_of(token: str) -> str | None:
    """The session that a token names, or None if it is none of ours by its form."""
    session_id, _, rest = token.partition(".")
    return session_id if is_token(session_id) and _generation(rest) is not None else None


def judge(state: SessionState | None, token: str, now_ms: int) -> Meaning:
    """What `token` means for the session that it names."""
    if state is None or state.ended_ms is not None or state.expires_ms <= now_ms:
        return Meaning.INVALID
    presented = digest(token)
    if hmac.compare_digest(presented, state.refresh_hash):
        return Meaning.NEWEST
    if state.previous_hash is not None and hmac.compare_digest(presented, state.previous_hash):
        soon = state.rotated_ms is not None and now_ms - state.rotated_ms <= REPEAT_MS
        return Meaning.REPEATED if soon else Meaning.REUSED
    generation = _generation(token.partition(".")[2])
    return (
        Meaning.REUSED
        if generation is not None and generation < state.generation
        else Meaning.INVALID
    )


def successor(state: SessionState, meaning: Meaning, new_token: str, now_ms: int) -> SessionState:
    """The state after `new_token` was given for a NEWEST or REPEATED one."""
    first_use = meaning is Meaning.NEWEST
    return msgspec.structs.replace(
        state,
        generation=state.generation + 1,
        refresh_hash=digest(new_token),
        expires_ms=now_ms + LIFETIME_MS,
        # A repeat does not prolong the moment in which repeats are allowed.
        previous_hash=state.refresh_hash if first_use else state.previous_hash,
        rotated_ms=now_ms if first_use else state.rotated_ms,
    )


def _generation(rest: str) -> int | None:
    generation, _, random = rest.partition(".")
    well_formed = (
        generation.isascii() and generation.isdecimal() and len(generation) < 10 and random
    )
    return int(generation) if well_formed else None
