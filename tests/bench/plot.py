"""`python -m tests.bench.plot OUT.svg REPORT.json…`: latency and CPU over load, drawn out of what `--json` wrote.

One point for each report of p2p; where several have the same load, the one with the median CPU counts.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from html import escape
from itertools import groupby
from math import log10
from pathlib import Path

import msgspec

from tests.bench.measure import ROAD, Report

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 420, 300, 60, 40, 50
LATENCIES = {"p50": ("#4c78a8", 16), "p99": ("#e45756", -8)}
"""Colour, and where the name stands below the end of the line."""
PARTS = {
    "edge": "#4c78a8",
    "send": "#72b7b2",
    "timeline": "#f58518",
    "nats": "#d0d0d0",
    "redis": "#b8b8b8",
    "kafka": "#9c9c9c",
    "mariadb": "#808080",
}
Scale = Callable[[float], float]


def points(reports: Iterable[Report]) -> list[Report]:
    """One report for each load, by load."""

    def load(report: Report) -> tuple[float, float]:
        return (report.options.rate or float("inf"), report.options.in_flight or 0)

    def cpu(report: Report) -> float:
        return next(iter(report.cpu_us.values()))

    found = []
    for _, same in groupby(sorted(reports, key=load), load):
        ranked = sorted(same, key=cpu)
        found.append(ranked[len(ranked) // 2])
    return sorted(found, key=lambda report: report.per_s["acked"])


def draw(reports: Sequence[Report]) -> str:
    """Two charts side by side and a line that says where they come from."""
    first = reports[0]
    about = f"{first.machine['cpu']}, {first.machine['cores']} cores for everything; commit {first.commit}"
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * WIDTH + 20} {HEIGHT + 30}"'
            ' font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>'
        ),
        *_latency(reports),
        f'<g transform="translate({WIDTH + 10} 0)">',
        *_cpu(reports),
        "</g>",
        _text(10, HEIGHT + 20, f"p2p on {first.options.stack} stack · {about}", "start"),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _latency(reports: Sequence[Report]) -> list[str]:
    most = max(report.per_s["acked"] for report in reports) * 1.05
    x: Scale = lambda rate: LEFT + (WIDTH - LEFT - 20) * rate / most  # noqa: E731
    y: Scale = lambda ms: HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * log10(max(ms, 1)) / 3  # noqa: E731
    lines = [_text(LEFT, 20, "ack latency, ms, over acked messages a second", "start")]
    for ms in (1, 10, 50, 100, 1000):
        lines.append(_line(LEFT, y(ms), WIDTH - 20, y(ms), "#e0e0e0"))
        lines.append(_text(LEFT - 6, y(ms) + 4, str(ms), "end"))
    for name, (colour, below) in LATENCIES.items():
        at = [(x(r.per_s["acked"]), y(r.latency_ms["ack"][name])) for r in reports]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in at)
        lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        lines += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in at]
        lines.append(_text(at[-1][0], at[-1][1] + below, name.upper(), "end", colour))
    ticks = [(x(r.per_s["acked"]), f"{r.per_s['acked']:,.0f}") for r in reports]
    return lines + [_text(a, HEIGHT - BOTTOM + 16, label, "middle") for a, label in ticks]


def _cpu(reports: Sequence[Report]) -> list[str]:
    sums = [sum(r.cpu_us.get(name, 0.0) for name in PARTS) for r in reports]
    height = (HEIGHT - BOTTOM - TOP) / max(sums)
    step = (WIDTH - LEFT - 20) / len(reports)
    lines = [_text(LEFT, 20, "CPU µs for each message; grey: servers", "start")]
    for i, (report, total) in enumerate(zip(reports, sums, strict=True)):
        left, base = LEFT + i * step + step * 0.15, float(HEIGHT - BOTTOM)
        for name, colour in PARTS.items():
            micros = report.cpu_us.get(name, 0.0)
            tall = micros * height
            base -= tall
            lines.append(
                f'<rect x="{left:.1f}" y="{base:.1f}" width="{step * 0.7:.1f}" height="{tall:.1f}"'
                f' fill="{colour}"><title>{name} {micros:.0f} µs</title></rect>'
            )
        middle = left + step * 0.35
        road = next(iter(report.cpu_us.values()))
        lines.append(_text(middle, base - 4, f"{road:.0f} + {total - road:.0f}", "middle"))
        label = f"{report.per_s['acked']:,.0f}/s"
        lines.append(_text(middle, HEIGHT - BOTTOM + 16, label, "middle"))
    for i, name in enumerate(ROAD):
        lines.append(_text(LEFT + 70 * i, HEIGHT - 14, name, "start", PARTS[name]))
    return lines


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#333") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def main() -> None:
    """Draws."""
    out, *names = map(Path, sys.argv[1:])
    reports = [
        r for name in names for r in msgspec.json.decode(name.read_bytes(), type=list[Report])
    ]
    out.write_text(draw(points(reports)), encoding="utf-8")


if __name__ == "__main__":
    main()
