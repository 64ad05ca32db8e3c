"""`python -m tests.bench SCENARIO`: runs scenarios on a system of their own, prints tables and writes JSON."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from laptop.process import LaptopError
from tests.bench import bridge
from tests.bench.bridge import BridgeReport
from tests.bench.compare import compare, ratios
from tests.bench.generators import LoadError
from tests.bench.measure import Report, measure
from tests.bench.progress import Progress
from tests.bench.report import table
from tests.bench.scenarios import SCENARIOS, Options
from tests.bench.stack import KINDS


def parser() -> argparse.ArgumentParser:
    """The command line."""
    scenarios = "\n".join(f"  {name:<8} {scenario.help}" for name, scenario in SCENARIOS.items())
    it = argparse.ArgumentParser(
        prog="./task bench --",
        description="Measures the whole system, which it starts itself.\n\nScenarios:\n"
        f"{scenarios}\n  bridge   a command on NATS and through a bridge; a start from zero",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    it.add_argument("scenario", choices=[*SCENARIOS, "bridge", "all"], metavar="SCENARIO")
    it.add_argument(
        "--stack",
        choices=KINDS,
        default="laptop",
        help="JetStream + SQLite, or Kafka + MariaDB (full)",
    )
    it.add_argument(
        "--seconds", type=float, default=10.0, help="how long it is measured (%(default)s)"
    )
    it.add_argument("--warm-up", type=float, help="seconds before, not counted (laptop 2, full 40)")
    it.add_argument(
        "--messages", type=int, default=0, help="end after so many (0: only after the time)"
    )
    it.add_argument("--rate", type=float, default=0.0, help="a second, open loop; 0: closed loop")
    it.add_argument("--pairs", type=int, help="of users (p2p 100, history 50, mix 100)")
    it.add_argument("--connections", type=int, help="group 500, idle 10000, storm 2000")
    it.add_argument("--in-flight", type=int, help="requests of a connection without answer (p2p 8)")
    it.add_argument(
        "--body", type=int, default=100, help="bytes of a message's content (%(default)s)"
    )
    it.add_argument("--cold", action="store_true", help="history: pages that only SQL has")
    it.add_argument("--processes", type=int, default=1, help="load generators (%(default)s)")
    it.add_argument("--workers", type=int, help="processes of the edge (1, group 2)")
    it.add_argument(
        "--members", type=int, default=0, help="group: all, with those who are not on-line"
    )
    it.add_argument(
        "--groups", type=int, default=0, help="idle, storm: of each user, shared with nobody"
    )
    it.add_argument("--partitions", type=int, default=0, help="of the log (laptop 8, full 64)")
    it.add_argument(
        "--profile",
        action="store_true",
        help="flame graphs of edge, send, timeline, history in .bench/",
    )
    it.add_argument(
        "--compare", metavar="REV", help="alternate between this commit and the working tree"
    )
    it.add_argument("--rounds", type=int, default=3, help="of --compare (%(default)s)")
    it.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    return it


async def run(arguments: argparse.Namespace) -> list[Report]:
    """All that was asked for, one after the other."""
    names = list(SCENARIOS) if arguments.scenario == "all" else [arguments.scenario]
    given = {
        name: value for name, value in vars(arguments).items() if name in Options.__struct_fields__
    }
    reports: list[Report] = []
    for name in names:
        options = Options(**given | {"scenario": name})
        if arguments.compare:
            both = await compare(options, arguments.compare, arguments.rounds, Progress())
            print(ratios(both), flush=True)
            reports += both
        else:
            reports.append(await measure(options, Progress()))
            print(table(reports[-1]), flush=True)
    return reports


def main() -> int:
    """Status 1 if something could not run, 3 if a message was lost, doubled or misordered."""
    arguments = parser().parse_args()
    reports: Sequence[Report | BridgeReport]
    try:
        if arguments.scenario == "bridge":
            report = asyncio.run(bridge.measure(arguments.seconds))
            print(bridge.table(report), flush=True)
            reports, lost = [report], any(row.failed for row in report.rows)
        else:
            whole = asyncio.run(run(arguments))
            reports, lost = whole, any(report.problems for report in whole)
    except (LaptopError, LoadError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        arguments.json.write_bytes(
            msgspec.json.format(msgspec.json.encode(reports), indent=2) + b"\n"
        )
    return 3 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
