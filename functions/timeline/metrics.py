"""What the timeline counts."""

import msgspec


class Counters(msgspec.Struct):
    """Totals since the start."""

    records: int = 0
    accepted: int = 0
    repeated: int = 0
    refused: int = 0
    changed: int = 0
    """Recalls, edits, reactions, pins."""
    moved: int = 0
    """Positions of readers."""
    unchanged: int = 0
    dead: int = 0
    clashes: int = 0
    """Messages that could not be stored because others were in their place. Anything but 0 is an alarm."""
    unsent: int = 0
    """Effects that were not published because the bus was away."""
    commits: int = 0
    rows: int = 0
    fenced: int = 0
    """Partitions lost to another owner's compare-and-set."""
    facts: int = 0
    failures: int = 0
    """Calls to SQL or the log that had to be repeated."""
