"""What the benchmark and its load processes say to each other: JSON, one object a line, over their pipes."""

from typing import Literal

import msgspec

from tests.bench.histogram import Histogram


class Job(msgspec.Struct, kw_only=True):
    """What a load process is to be. It owns the users `first` … `first + users - 1`.

    seeded: messages that every conversation has already. group: that is written to.
    """

    kind: str
    host: str
    port: int
    secret: str
    first: int
    users: int
    connections: int = 0
    in_flight: int = 1
    body: int = 100
    limit: int = 50
    seeded: int = 0
    group: int = 0
    cold: bool = False


class Part(msgspec.Struct, kw_only=True):
    """One stretch of load: for `seconds`, or until `most` were begun (0: no such bound).

    rate: a second, whatever the server does (open loop); 0: as many as `in_flight` allows (closed loop).
    """

    seconds: float
    rate: float = 0.0
    most: int = 0


class Call(msgspec.Struct):
    """From the benchmark."""

    name: Literal["connect", "run"]
    part: Part | None = None


class Result(msgspec.Struct):
    """What came of a part.

    counts: by what was counted (`acked`, `delivered`, `reads` …). finished: seconds from the start to the last of it.
    latencies: buckets of `Histogram`. problems: what must not happen, by name; all of them are to be 0.
    """

    counts: dict[str, int] = {}
    finished: dict[str, float] = {}
    latencies: dict[str, dict[int, int]] = {}
    problems: dict[str, int] = {}

    def count(self, name: str, number: int = 1) -> None:
        """Adds to a count."""
        self.counts[name] = self.counts.get(name, 0) + number

    def problem(self, name: str, number: int = 1) -> None:
        """Adds to a problem, if there is one."""
        if number:
            self.problems[name] = self.problems.get(name, 0) + number

    def add(self, other: "Result") -> None:
        """Another process's result of the same part."""
        for name, number in other.counts.items():
            self.count(name, number)
        for name, number in other.problems.items():
            self.problem(name, number)
        for name, seconds in other.finished.items():
            self.finished[name] = max(seconds, self.finished.get(name, 0.0))
        for name, buckets in other.latencies.items():
            histogram = Histogram(self.latencies.get(name))
            histogram.add(buckets)
            self.latencies[name] = histogram.buckets


class Said(msgspec.Struct):
    """From a load process: how much is done so far, or a call's result."""

    progress: int = 0
    result: Result | None = None
