"""The benchmark itself: a few hundred messages through the whole system, counted exactly."""

from xml.etree import ElementTree as ET

import pytest

from tests.bench import bridge, plot
from tests.bench.histogram import Histogram
from tests.bench.measure import Report, measure
from tests.bench.progress import Progress
from tests.bench.report import table
from tests.bench.scenarios import Options


async def _measure(options: Options) -> Report:
    report = await measure(options, Progress())
    assert report.problems == {}, table(report)
    return report


@pytest.mark.slow
async def test_pairs() -> None:
    report = await _measure(
        Options(scenario="p2p", pairs=10, seconds=60, messages=3000, warm_up=0.2)
    )
    assert report.counts == {"acked": 3000, "delivered": 3000, "stored": 3000}
    assert report.cpu_us["edge"] > 0
    assert report.latency_ms["ack"]["p50"] > 0
    drawn = ET.fromstring(plot.draw([report]))  # noqa: S314 - our own
    assert len(drawn.findall(".//{*}rect/{*}title")) == len(plot.PARTS)


@pytest.mark.slow
async def test_open_loop() -> None:
    report = await _measure(
        Options(scenario="p2p", pairs=10, seconds=60, messages=100, rate=200, warm_up=0)
    )
    assert report.counts == {"acked": 100, "delivered": 100, "stored": 100}


@pytest.mark.slow
async def test_fan_out() -> None:
    report = await _measure(
        Options(scenario="group", connections=20, members=50, seconds=60, messages=30, warm_up=0)
    )
    assert report.counts == {"acked": 30, "delivered": 600, "stored": 30}


@pytest.mark.slow
async def test_chatters() -> None:
    report = await _measure(
        Options(scenario="mix", pairs=5, seconds=60, messages=200, rate=200, warm_up=0)
    )
    assert report.counts["stored"] == report.counts["acked"] > 0
    assert report.counts["reads"] > 0


@pytest.mark.slow
async def test_bridge() -> None:
    report = await bridge.measure(0.2)
    assert [(row.road, row.in_flight) for row in report.rows] == [
        (road, count) for road in ("direct", "bridge") for count in bridge.IN_FLIGHT
    ]
    assert all(row.commands > 0 and row.failed == 0 for row in report.rows)
    assert all(set(row.cpu_us) == {"profile", "bridge"} for row in report.rows[3:])
    assert len(report.start_ms) == bridge.STARTS
    assert bridge.table(report)


@pytest.mark.slow
async def test_syncs() -> None:
    report = await _measure(Options(scenario="sync", pairs=5, seconds=60, messages=100, warm_up=0))
    assert report.counts["reads"] == 100
    assert report.counts["messages read"] == 5_000


@pytest.mark.slow
async def test_readers() -> None:
    report = await _measure(Options(scenario="read", pairs=5, seconds=60, messages=100, warm_up=0))
    assert report.counts["acked"] == report.counts["positions read"] == 100


def test_quantiles_are_at_most_one_percent_too_high() -> None:
    histogram = Histogram()
    for milliseconds in range(1, 1001):
        histogram.record(milliseconds / 1000)
    for share, exact in ((0.5, 0.5), (0.99, 0.99), (1.0, 1.0)):
        assert exact <= histogram.quantile(share) * 1.000001 <= exact * 1.011
    assert Histogram().quantile(0.5) == 0
