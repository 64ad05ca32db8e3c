"""A report as text."""

from collections.abc import Mapping

from tests.bench.measure import Report

MANY = 500
"""From so many connections on, what one costs says something."""


def table(report: Report) -> str:
    """One scenario for a person to read."""
    options = report.options
    loop = f"closed loop, {options.in_flight} in flight" if options.in_flight else "no requests"
    if options.rate:
        loop = f"open loop, {options.rate:g}/s"
    machine = " · ".join(f"{name} {value}" for name, value in report.machine.items())
    lines = [
        f"── {report.scenario} · {options.stack} · {report.connections} connections · {loop}",
        f"   commit {report.commit} · {machine}",
    ]
    if report.profiled:
        lines.append("   with the profiler at work: CPU and latency are too high")
    for name, rate in report.per_s.items():
        lines.append(f"{name:<28}{report.counts[name]:>12,}{rate:>12,.0f} /s")
    if report.connections >= MANY:
        lines.append(
            f"{'connected':<28}{report.connections:>12,}{report.connects_per_s:>12,.0f} /s"
        )
    for name, count in report.counts.items():
        if name not in report.per_s:
            lines.append(f"{name:<28}{count:>12,}")
    if report.cache_hit_rate is not None:
        lines.append(f"{'pages from the cache':<28}{report.cache_hit_rate:>11.1%}")
    for name, quantiles in report.latency_ms.items():
        values = "".join(f"{q:>7} {value:>9.2f}" for q, value in quantiles.items())
        lines.append(f"{name + ', ms':<18}{values}")
    if report.cpu_us:
        lines += _cpu(f"CPU µs for each {report.unit}", report.cpu_us)
    if report.connections >= MANY:
        lines += _cpu("CPU µs for each connect", report.connect_cpu_us)
        each = {name: memory["a connection"] for name, memory in report.memory_kib.items()}
        lines += _cpu("KiB for each connection", each)
    if report.problems:
        lines += [f"PROBLEM: {name}: {count}" for name, count in report.problems.items()]
    else:
        lines.append("lost, double, misordered: 0; all that was acked is delivered and stored once")
    return "\n".join(lines) + "\n"


def _cpu(title: str, values: Mapping[str, float]) -> list[str]:
    return [f"{title:<29}" + " · ".join(f"{name} {value:.1f}" for name, value in values.items())]
