"""CPU time and memory of the system's processes."""

from collections.abc import Iterable
from contextlib import suppress

import psutil

from tests.bench.stack import Stack

Seconds = dict[str, float]
"""CPU time by part."""


def cpu(stack: Stack, load: Iterable[int]) -> Seconds:
    """CPU seconds that every part has used so far; `load`: process ids of the load generator."""
    used = {name: sum(map(_cpu, stack.processes(name))) for name in stack.parts}
    return used | {"load": sum(_cpu(psutil.Process(pid)) for pid in load)}


def memory(stack: Stack) -> dict[str, int]:
    """Bytes of memory that nobody else has (USS), by part."""
    return {name: sum(map(_memory, stack.processes(name))) for name in stack.parts}


def since(before: Seconds, after: Seconds) -> Seconds:
    """The difference."""
    return {name: after[name] - before[name] for name in before}


def _cpu(process: psutil.Process) -> float:
    with suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0


def _memory(process: psutil.Process) -> int:
    with suppress(psutil.NoSuchProcess):
        return int(process.memory_full_info().uss)
    return 0
