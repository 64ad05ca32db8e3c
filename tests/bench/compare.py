"""Two source trees in one run, in turns, so that what else the machine does meets both alike."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from laptop.process import LaptopError
from tests.bench.measure import Report, measure
from tests.bench.progress import Progress
from tests.bench.report import MANY
from tests.bench.scenarios import Options
from tests.bench.stack import ROOT


@contextmanager
def worktree(revision: str) -> Iterator[Path]:
    """A temporary checkout of a commit. Raises: LaptopError if there is none of that name."""
    with tempfile.TemporaryDirectory(prefix="natterjack-compare-") as folder:
        path = Path(folder) / "tree"
        _git("worktree", "add", "--detach", "--quiet", str(path), revision)
        try:
            yield path
        finally:
            _git("worktree", "remove", "--force", str(path))


async def compare(options: Options, revision: str, rounds: int, progress: Progress) -> list[Report]:
    """Measures the commit and the working tree `rounds` times in turns: A B A B … The benchmark is this tree's."""
    reports: list[Report] = []
    with worktree(revision) as path:
        for _ in range(rounds):
            reports += [await measure(options, progress, root) for root in (path, ROOT)]
    return reports


def ratios(reports: list[Report]) -> str:
    """The medians of both, and the second by the first."""
    before, after = map(_figures, (reports[::2], reports[1::2]))
    lines = [
        f"── {reports[0].scenario} · {reports[0].options.stack} · medians of {len(reports) // 2} rounds in turns",
        f"{'':<34}{reports[0].commit:>16}{reports[1].commit:>16}{'ratio':>9}",
    ]
    both = [(name, before[name], after[name]) for name in before if name in after and before[name]]
    lines += [f"{name:<34}{a:>16,.2f}{b:>16,.2f}{b / a:>9.3f}" for name, a, b in both]
    return "\n".join(lines) + "\n"


def _figures(reports: list[Report]) -> dict[str, float]:
    samples: dict[str, list[float]] = {}
    for report in reports:
        for name, value in report.per_s.items():
            samples.setdefault(f"{name}, /s", []).append(value)
        for name, quantiles in report.latency_ms.items():
            for quantile in ("p50", "p99"):
                samples.setdefault(f"{name} {quantile}, ms", []).append(quantiles[quantile])
        for name, value in report.cpu_us.items():
            samples.setdefault(f"CPU {name}, µs", []).append(value)
        if report.connections >= MANY:
            samples.setdefault("connects, /s", []).append(report.connects_per_s)
            for name, value in report.connect_cpu_us.items():
                samples.setdefault(f"CPU {name}, µs a connect", []).append(value)
        if report.connections > 1:
            samples.setdefault("edge memory, KiB a connection", []).append(
                report.memory_kib["edge"]["a connection"]
            )
    return {name: median(values) for name, values in samples.items()}


def _git(*command: str) -> None:
    done = subprocess.run(
        ["git", "-C", str(ROOT), *command], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise LaptopError(f"git {command[0]} failed: {done.stderr.strip()}")
