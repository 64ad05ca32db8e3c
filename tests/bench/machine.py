"""On what, and of what, a benchmark was run."""

import os
import platform
import statistics
import subprocess
import time
from pathlib import Path

from laptop.interpreter import is_plain


def describe() -> dict[str, str]:
    """CPU, cores, memory, kernel, Python."""
    return {
        "cpu": _cpu_model(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version() + (", plain build" if is_plain() else ""),
        "load average before": f"{os.getloadavg()[0]:.2f}",
        "fixed work": f"{statistics.median(_fixed_work_ms() for _ in range(5)):.0f} ms",
    }


def commit(root: Path) -> str:
    """The commit of a source tree, with `+` if it has changes; `none` if it is not under git."""
    head = _git(root, "rev-parse", "--short=12", "HEAD")
    return (head + ("+" if _git(root, "status", "--porcelain") else "")) if head else "none"


def _fixed_work_ms() -> float:
    """CPU time of the same work each time: a shared machine has slow hours, in which everything costs more."""
    begin = time.process_time()
    total = 0
    for i in range(1_000_000):
        total += i
    return (time.process_time() - begin) * 1000


def _git(root: Path, *command: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *command], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else ""


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
