import asyncio

import pytest

from edge.roster import AUTH_TIMEOUT_S, HEARTBEAT_S, TICK_S, Roster

TICKS = int(HEARTBEAT_S / TICK_S)


class FakeSocket:
    def __init__(self) -> None:
        self.beats_missed = 0
        self.pings = 0
        self.gone = False
        self.unauthenticated = False

    def ping(self) -> None:
        self.pings += 1

    def silent(self) -> None:
        self.gone = True

    def auth_missing(self) -> None:
        self.unauthenticated = True

    def push(self, wire: bytes) -> None: ...

    def close(self, code: int, _reason: str) -> None: ...


@pytest.fixture
async def roster() -> Roster:
    roster = Roster()
    roster.close()  # the tests turn the clock themselves
    return roster


def turn(roster: Roster, ticks: int) -> None:
    for _ in range(ticks):
        roster._tick()
        roster.close()


async def test_one_ping_per_heart_beat_and_two_missed_are_the_end(roster: Roster) -> None:
    answers, is_dead = FakeSocket(), FakeSocket()
    roster.add(answers, anonymous=False)
    roster.add(is_dead, anonymous=False)
    for beat in range(1, 3):
        turn(roster, TICKS)
        assert (answers.pings, is_dead.pings) == (beat, beat)
        answers.beats_missed = 0
    assert not is_dead.gone
    turn(roster, TICKS)
    assert (answers.pings, answers.gone) == (3, False)
    assert (is_dead.pings, is_dead.gone) == (2, True)


async def test_pings_are_spread_over_the_heart_beat(roster: Roster) -> None:
    sockets = [FakeSocket() for _ in range(TICKS)]
    for socket in sockets:
        roster.add(socket, anonymous=False)
        turn(roster, 1)
    for expected in range(1, TICKS + 1):
        before = sum(s.pings for s in sockets)
        turn(roster, 1)
        assert sum(s.pings for s in sockets) - before == 1, expected


async def test_only_those_who_have_not_logged_in_in_time(
    roster: Roster, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, late, gone = FakeSocket(), FakeSocket(), FakeSocket()
    for socket in (good, late, gone):
        roster.add(socket, anonymous=True)
    roster.logged_in(good)
    roster.discard(gone)
    turn(roster, 1)
    assert not late.unauthenticated
    now = asyncio.get_running_loop().time()
    monkeypatch.setattr(roster._loop, "time", lambda: now + AUTH_TIMEOUT_S + 1)
    turn(roster, 1)
    assert [s.unauthenticated for s in (good, late, gone)] == [False, True, False]


async def test_emptied(roster: Roster) -> None:
    await roster.emptied(0)
    socket = FakeSocket()
    roster.add(socket, anonymous=True)
    waiting = asyncio.create_task(roster.emptied(60))
    await asyncio.sleep(0)
    assert list(roster) == [socket]
    roster.discard(socket)
    roster.discard(socket)
    await waiting
    assert list(roster) == []
