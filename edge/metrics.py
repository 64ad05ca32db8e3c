"""Prometheus text of a worker's `Stats`, or of all workers' together."""

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from edge.stats import BUCKETS_S, Stats

_COUNTERS = {
    "connects": "WebSocket connections taken since the start",
    "frames_in": "Data frames received from clients",
    "frames_out": "Frames written to clients",
    "slow_clients": "Connections closed because the client did not read (4408)",
    "silent_clients": "Connections dropped because the client answered no ping",
    "bus_reconnects": "Times the connection to NATS came back",
}


class _Edge(Collector):
    def __init__(self, stats: Stats) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        stats = self._stats
        yield GaugeMetricFamily(
            "im_edge_connections", "Open WebSocket connections", stats.connections
        )
        yield GaugeMetricFamily(
            "im_edge_commands_in_flight", "Commands that wait for their answers", stats.in_flight
        )
        for name, text in _COUNTERS.items():
            yield CounterMetricFamily(f"im_edge_{name}", text, getattr(stats, name))
        answers = CounterMetricFamily(
            "im_edge_commands", "Answered commands by type and code", labels=["type", "code"]
        )
        latency = HistogramMetricFamily(
            "im_edge_command_seconds", "Time until a command's answer", labels=["type"]
        )
        bounds = [*map(str, BUCKETS_S), "+Inf"]
        for command_type, command in sorted(stats.commands.items()):
            for code, count in sorted(command.codes.items()):
                answers.add_metric([command_type, code], count)
            buckets = [*zip(bounds, accumulate(command.buckets), strict=True)]
            latency.add_metric([command_type], buckets, command.seconds)
        yield answers
        yield latency


def prometheus_text(stats: Stats) -> bytes:
    """The exposition format, version 0.0.4."""
    registry = CollectorRegistry()
    registry.register(_Edge(stats))
    return generate_latest(registry)
