"""Latencies in buckets that grow by 1 %: no sample is kept, histograms of several processes add up."""

from collections.abc import Mapping
from math import log

_STEP = log(1.01)
_UNIT_S = 1e-6
"""Nothing is told apart below a microsecond."""


class Histogram:
    """Counts seconds; `buckets` holds a count for each exponent of 1.01 above a microsecond."""

    def __init__(self, buckets: Mapping[int, int] | None = None) -> None:
        self.buckets: dict[int, int] = dict(buckets or {})

    def record(self, seconds: float) -> None:
        """One sample."""
        bucket = int(log(seconds / _UNIT_S) / _STEP) + 1 if seconds > _UNIT_S else 0
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1

    def add(self, buckets: Mapping[int, int]) -> None:
        """All samples of another histogram."""
        for bucket, count in buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + count

    def quantile(self, share: float) -> float:
        """Seconds within which this share (0 to 1) of the samples lies, at most 1 % too high; 0 without samples."""
        left = share * sum(self.buckets.values())
        for bucket in sorted(self.buckets):
            left -= self.buckets[bucket]
            if left <= 1e-9:
                return float(_UNIT_S * 1.01**bucket)
        return 0.0

    def summary(self) -> dict[str, float]:
        """The quantiles of a report, in milliseconds."""
        shares = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
        return {name: round(self.quantile(share) * 1000, 3) for name, share in shares.items()}
