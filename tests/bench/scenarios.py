"""The scenarios by name: how many users they need, what their load processes do, and what is counted as one unit."""

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from tests.bench.groups import GROUP
from tests.bench.talk import Job

HOT = 200
"""Messages of a conversation that the hot cache keeps (`shared.hot.KEPT`)."""
WARM_UP_S = {"laptop": 2.0, "full": 40.0}
"""Until Kafka's Java has compiled what is busy."""


class Options(msgspec.Struct, kw_only=True):
    """What the command line says. Numbers that are None are the scenario's own.

    members: of the group, those included who are not on-line. groups: of each connection's user.
    """

    scenario: str
    stack: str = "laptop"
    seconds: float = 10.0
    warm_up: float | None = None
    rate: float = 0.0
    messages: int = 0
    pairs: int | None = None
    connections: int | None = None
    in_flight: int | None = None
    body: int = 100
    cold: bool = False
    processes: int = 1
    workers: int | None = None
    members: int = 0
    groups: int = 0
    partitions: int = 0
    profile: bool = False


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """`unit`: the count that CPU is divided by, "" if there is none. `users_of`: users for complete options.

    seeded: messages that every pair gets before. single: load cannot be split over processes. warm: needs a warm-up.
    """

    help: str
    kind: str
    unit: str
    users_of: Callable[[Options], int]
    defaults: dict[str, int]
    seeded: Callable[[Options], int] = field(default=lambda _: 0)
    single: bool = False
    warm: bool = True


def _per_pair(options: Options) -> int:
    return 2 * (options.pairs or 0)


def _per_connection(options: Options) -> int:
    return options.connections or 0


SCENARIOS: dict[str, Scenario] = {
    "p2p": Scenario(
        help="pairs; one sends, the other receives",
        kind="pairs",
        unit="acked",
        users_of=_per_pair,
        defaults={"pairs": 100, "in_flight": 8},
    ),
    "group": Scenario(
        help="a group; one member writes, all who are on-line get every message",
        kind="fan_out",
        unit="delivered",
        users_of=lambda options: 1 + _per_connection(options),
        defaults={"connections": 500, "in_flight": 8, "workers": 2},
        single=True,
    ),
    "history": Scenario(
        help="the last 50 of hot conversations from the cache; with --cold, older ones from SQL",
        kind="reads",
        unit="reads",
        users_of=_per_pair,
        defaults={"pairs": 50, "in_flight": 1},
        seeded=lambda options: HOT + 100 if options.cold else 60,
    ),
    "sync": Scenario(
        help="devices that come back ask for the 50 messages they have missed",
        kind="syncs",
        unit="reads",
        users_of=_per_pair,
        defaults={"pairs": 50, "in_flight": 1},
        seeded=lambda _: 60,
    ),
    "read": Scenario(
        help="pairs; one sends, the other receives and says of each message that it is read",
        kind="readers",
        unit="acked",
        users_of=_per_pair,
        defaults={"pairs": 100, "in_flight": 8},
    ),
    "idle": Scenario(
        help="connections that only are there",
        kind="crowd",
        unit="",
        users_of=_per_connection,
        defaults={"connections": 10000},
        warm=False,
    ),
    "storm": Scenario(
        help="all connections break and come back at once",
        kind="storm",
        unit="reconnected",
        users_of=_per_connection,
        defaults={"connections": 2000},
        warm=False,
    ),
    "mix": Scenario(
        help="like a chat: sends, pages of history, reconnects; at --rate a second (500)",
        kind="chatters",
        unit="actions",
        users_of=_per_pair,
        defaults={"pairs": 100, "rate": 500},
        seeded=lambda _: 60,
    ),
}


def complete(options: Options) -> Options:
    """The options with the scenario's own numbers where none were given."""
    defaults = SCENARIOS[options.scenario].defaults
    defaults = {"workers": 1} | defaults
    missing = {name: value for name, value in defaults.items() if not getattr(options, name)}
    warm_up = WARM_UP_S[options.stack] if options.warm_up is None else options.warm_up
    return msgspec.structs.replace(options, warm_up=warm_up, **missing)


def jobs(options: Options, port: int, secret: str) -> list[Job]:
    """One Job for each load process. Pairs are never split."""
    scenario = SCENARIOS[options.scenario]
    users = scenario.users_of(options)
    count = 1 if scenario.single else options.processes
    split = []
    first = 1
    for i in range(count):
        mine = users // 2 * (i + 1) // count * 2 - (first - 1)
        if i == count - 1:
            mine = users - (first - 1)
        split.append((first, mine))
        first += mine
    return [
        Job(
            kind=scenario.kind,
            host="127.0.0.1",
            port=port,
            secret=secret,
            first=first,
            users=mine,
            connections=options.connections or 0,
            in_flight=options.in_flight or 1,
            body=options.body,
            seeded=scenario.seeded(options),
            group=GROUP,
            cold=options.cold,
        )
        for first, mine in split
    ]
