"""What one worker counts. The hot paths only bump plain integers here; `edge.metrics` makes Prometheus text of them."""

from bisect import bisect_left

import msgspec

from schemas.types import Model

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the latency histogram; one more bucket takes the rest."""


class CommandStats(Model, omit_defaults=False):
    """One command: answers by code, and how long they took."""

    codes: dict[str, int] = msgspec.field(default_factory=dict)
    buckets: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    seconds: float = 0.0

    def count(self, code: str, seconds: float) -> None:
        """One more answer."""
        self.codes[code] = self.codes.get(code, 0) + 1
        self.buckets[bisect_left(BUCKETS_S, seconds)] += 1
        self.seconds += seconds


class Stats(Model, omit_defaults=False):
    """One worker. `connections` and `in_flight` are levels, all else only grows."""

    ready: bool = False
    connections: int = 0
    in_flight: int = 0
    connects: int = 0
    frames_in: int = 0
    frames_out: int = 0
    slow_clients: int = 0
    silent_clients: int = 0
    bus_reconnects: int = 0
    commands: dict[str, CommandStats] = msgspec.field(default_factory=dict)

    def command(self, command_type: str) -> CommandStats:
        """The numbers of one command."""
        stats = self.commands.get(command_type)
        if stats is None:
            stats = self.commands[command_type] = CommandStats()
        return stats

    def add(self, other: "Stats") -> None:
        """Adds another worker's numbers to these."""
        for name in self.__struct_fields__:
            if name not in ("ready", "commands"):
                setattr(self, name, getattr(self, name) + getattr(other, name))
        for command_type, theirs in other.commands.items():
            mine = self.command(command_type)
            for code, count in theirs.codes.items():
                mine.codes[code] = mine.codes.get(code, 0) + count
            mine.buckets = [a + b for a, b in zip(mine.buckets, theirs.buckets, strict=True)]
            mine.seconds += theirs.seconds
