"""Latencies by size: buckets of half a percent, so that rounds can be added up and every percentile read off."""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Final

from benchmarks.throughput.results import Histogram

GROWTH: Final = 1.005
"""Bucket `i` holds what took from GROWTH**i up to GROWTH**(i + 1) nanoseconds."""
NS_PER_MS: Final = 1e6


def collected(latencies_ns: Iterable[int]) -> Histogram:
    """Put each latency into its bucket; less than a nanosecond counts as one."""
    return _histogram(Counter(int(math.log(max(1, latency)) / math.log(GROWTH)) for latency in latencies_ns))


def merged(histograms: Iterable[Histogram]) -> Histogram:
    """What fell into any of them."""
    total: Counter[int] = Counter()
    for histogram in histograms:
        total.update(dict(zip(histogram.buckets, histogram.counts, strict=True)))
    return _histogram(total)


def bounds_ms(bucket: int) -> tuple[float, float]:
    """From where to where a bucket reaches."""
    return GROWTH**bucket / NS_PER_MS, GROWTH ** (bucket + 1) / NS_PER_MS


def count(histogram: Histogram) -> int:
    """How many latencies it holds."""
    return sum(histogram.counts)


def quantile_ms(histogram: Histogram, share: float) -> float:
    """What `share` of the latencies do not exceed, as if those of a bucket lay evenly in it; ValueError for none."""
    return at_rank_ms(histogram, share * count(histogram))


def at_rank_ms(histogram: Histogram, rank: float) -> float:
    """Where `rank` latencies lie below."""
    below = 0
    for bucket, inside in zip(histogram.buckets, histogram.counts, strict=True):
        if below + inside >= rank:
            low, high = bounds_ms(bucket)
            return low + (high - low) * max(0.0, rank - below) / inside
        below += inside
    raise ValueError(f"there is no rank {rank:g} among {below} latencies")


def _histogram(counts: Counter[int]) -> Histogram:
    buckets = tuple(sorted(counts))
    return Histogram(buckets, tuple(counts[bucket] for bucket in buckets))
