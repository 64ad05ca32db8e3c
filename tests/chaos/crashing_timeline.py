"""The timeline, killed from inside: `python -m tests.chaos.crashing_timeline POINT COUNT`.

POINT is one of "applied", "published", "committed"; the process kills itself with -9 when it gets there for the
COUNT-th time. It stands for a power switch at just the places between which something could be lost or doubled.
"""

import os
import signal
import sys
from functools import partial
from itertools import count

import functions.timeline
from functions.__main__ import main
from functions.timeline.shell import Timeline


def switch(point: str, times: int) -> None:
    """Makes the timeline of this process kill itself."""
    reached = count(1)

    def at(here: str) -> None:
        if here == point and next(reached) == times:
            os.kill(os.getpid(), signal.SIGKILL)

    vars(functions.timeline)["Timeline"] = partial(Timeline, at=at)


if __name__ == "__main__":
    switch(sys.argv[1], int(sys.argv[2]))
    sys.argv[1:] = ["timeline"]
    sys.exit(main())
