"""What an edge tells `presence`: changes gathered, everything anew when it is not known, a farewell."""

import asyncio

import pytest

from edge import presence
from edge.directory import NotKnownError
from edge.presence import AT_ONCE, Arrivals, Reporter
from schemas.presence import Connection, ReportPresence


class FakePresence:
    """Implements `edge.presence.Tells`: answers in turn, then that the edge is known."""

    def __init__(self, *answers: bool | Exception) -> None:
        self.reports: list[ReportPresence] = []
        self._answers = list(answers)
        self._arrived = asyncio.Event()

    async def report(self, report: ReportPresence) -> bool:
        self.reports.append(report)
        self._arrived.set()
        answer = self._answers.pop(0) if self._answers else True
        if isinstance(answer, Exception):
            raise answer
        return answer

    def farewell(self, report: ReportPresence) -> None:
        self.reports.append(report)

    async def heard(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.reports) < count:
                self._arrived.clear()
                await self._arrived.wait()


def connection(user_id: int) -> Connection:
    return Connection(user_id, f"c{user_id}", f"s{user_id}")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "GATHER_S", 0.0)
    monkeypatch.setattr(presence, "AGAIN_S", 0.0)


def test_who_came_and_went_between_two_reports_is_not_mentioned() -> None:
    arrivals = Arrivals()
    arrivals.joined(connection(1))
    arrivals.left(connection(1))
    arrivals.joined(connection(2))
    arrivals.left(connection(3))
    assert arrivals.take(10) == ([connection(2)], [connection(3)])
    assert arrivals.take(10) == ([], [])


async def test_everything_first_then_changes_then_a_farewell() -> None:
    tells, arrivals = FakePresence(), Arrivals()
    here = [connection(n) for n in range(1, AT_ONCE + 2)]
    reporter = Reporter(tells, arrivals, lambda: here)
    await tells.heard(2)
    arrivals.joined(connection(9_999))
    await tells.heard(3)
    reporter.close()
    first, second, change, farewell = tells.reports
    assert (len(first.joined), len(second.joined)) == (AT_ONCE, 1)
    assert (first.begins, second.begins, change.joined) == (True, False, [connection(9_999)])
    assert farewell.ends
    assert len({report.edge for report in tells.reports}) == 1


async def test_an_edge_that_is_not_known_any_more_tells_everything_under_a_new_name() -> None:
    tells, arrivals = FakePresence(True, False), Arrivals()
    reporter = Reporter(tells, arrivals, lambda: [connection(1)])
    await tells.heard(1)
    arrivals.joined(connection(2))
    await tells.heard(3)
    reporter.close()
    first, _, again = tells.reports[:3]
    assert again.edge != first.edge
    assert (again.replaces, again.begins, again.joined) == (first.edge, True, [connection(1)])


async def test_presence_that_is_away_is_told_everything_later() -> None:
    tells = FakePresence(NotKnownError("away"), NotKnownError("still"))
    reporter = Reporter(tells, Arrivals(), lambda: [connection(1)])
    await tells.heard(3)
    reporter.close()
    assert all(report.joined == [connection(1)] for report in tells.reports[:3])
