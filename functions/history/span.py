"""Which messages a request means. Since `seq` has no gaps, its bounds and the newest `seq` name them exactly."""

from typing import NamedTuple


class Bounds(NamedTuple):
    """As asked for: `after` and `before` are exclusive, at most `limit` messages."""

    after: int | None
    before: int | None
    limit: int

    @property
    def seen(self) -> int:
        """The newest message that there must be if the asker makes sense."""
        return max(self.after or 0, (self.before or 0) - 1)


class Span(NamedTuple):
    """Messages `first` … `last`, both included; empty if `last < first`.

    `newest_first`: which end to keep if it is cut.
    """

    first: int
    last: int
    newest_first: bool


def span_of(bounds: Bounds, newest: int, low: int = 0) -> Span:
    """What the bounds mean in a conversation whose newest message is `newest`, for one who sees those after `low`."""
    last = newest if bounds.before is None else min(newest, bounds.before - 1)
    if bounds.after is not None:
        after = max(bounds.after, low)
        return Span(after + 1, min(last, after + bounds.limit), newest_first=False)
    return Span(max(low + 1, last - bounds.limit + 1), last, newest_first=True)
