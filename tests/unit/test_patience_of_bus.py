"""How long what is sent to the log waits for company (`shared.adapters.nats`)."""

from itertools import count

from shared.adapters.nats import MOST_TICKS, TICK_S, Patience


def ticks(patience: Patience, each: int, *, every_ticks: float, start: float) -> int:
    """After many departures of so many messages."""
    times = (start + i * every_ticks * TICK_S for i in count())
    for _ in range(100):
        patience.left(each, next(times))
    return patience.ticks


def test_it_follows_the_rate() -> None:
    patience = Patience()
    assert patience.ticks == 0
    assert ticks(patience, 5, every_ticks=10, start=10.0) == 0
    assert ticks(patience, 20, every_ticks=10, start=20.0) == 1
    assert ticks(patience, 400, every_ticks=10, start=30.0) == MOST_TICKS
    assert ticks(patience, 1, every_ticks=1000, start=40.0) == 0
    assert ticks(patience, 1, every_ticks=0.25, start=200.0) == 4, "also of those that do not wait"
