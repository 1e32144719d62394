"""What a mount has done since it began: requests and how long they took, bytes, errors.

Latencies go into fixed histograms, so that memory stays the same for ever and noting one costs no more than two clock
readings: the buckets are half octaves, and a percentile is told as the upper end of its bucket, at most 41 % too high.
"""

from __future__ import annotations

import errno
import os
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from typing import Any

BUCKETS = 129
"""Up to 2^64 ns."""
KEPT_ERRORS = 20
PERCENTILES = (50, 90, 99)


def upper_end(bucket: int) -> float:
    """The latency in nanoseconds below which everything in a bucket and under it lies: sqrt(2) ** bucket."""
    return float(2 ** (bucket / 2))


def percentile(histogram: list[int], percent: int) -> float:
    """The latency in nanoseconds that `percent` of what is in the histogram took at most; 0 for an empty one."""
    wanted, seen = sum(histogram) * percent / 100, 0
    for bucket, count in enumerate(histogram):
        seen += count
        if count and seen >= wanted:
            return upper_end(bucket)
    return 0.0


class Statistics:
    """The counters of one mount. Only the event loop's thread writes to them; any thread may make a report."""

    def __init__(self) -> None:
        self._began = time.time_ns()
        # Behind the buckets of a request stands the sum of its latencies.
        self._histograms: dict[str, list[int]] = defaultdict(lambda: [0] * (BUCKETS + 1))
        self._refusals: Counter[str] = Counter()
        self._errors: deque[dict[str, Any]] = deque(maxlen=KEPT_ERRORS)
        self.bytes_read = 0
        self.bytes_written = 0
        self.reads_at_once = 0
        """Reads answered from memory, without a thread."""
        self.sources: dict[str, Callable[[], Any]] = {}
        """What else the report holds, by name, asked for when it is made."""

    def note(self, request: str, nanoseconds: int) -> None:
        """Count a request that was answered after so long."""
        histogram = self._histograms[request]
        # The square has twice the octaves.
        histogram[(nanoseconds * nanoseconds).bit_length()] += 1
        histogram[BUCKETS] += nanoseconds

    def refused(self, number: int) -> None:
        """Count an answer that was an error number."""
        self._refusals[errno.errorcode.get(number, str(number))] += 1

    def failed(self, request: str, number: int, error: BaseException) -> None:
        """Remember an error that somebody should look into."""
        self._errors.append(
            {
                "time": time.time_ns(),
                "request": request,
                "errno": errno.errorcode.get(number, str(number)),
                "error": f"{type(error).__name__}: {error}",
            }
        )

    def report(self) -> dict[str, Any]:
        """Everything, as values that JSON can hold. Times in nanoseconds since 1970, latencies in microseconds.

        Each part is copied in one step: requests go on meanwhile.
        """
        histograms = self._histograms.copy()
        reads = sum(histograms["read"][:BUCKETS]) if "read" in histograms else 0
        return {
            "pid": os.getpid(),
            "since": self._began,
            "time": time.time_ns(),
            "requests": {name: _latencies(histograms[name]) for name in sorted(histograms)},
            "refusals": dict(self._refusals.copy().most_common()),
            "bytes": {"read": self.bytes_read, "written": self.bytes_written},
            "reads": {"from_memory": self.reads_at_once, "from_disk": reads - self.reads_at_once},
            **{name: source() for name, source in self.sources.items()},
            "last_errors": list(self._errors.copy()),
        }


def _latencies(noted: list[int]) -> dict[str, Any]:
    *histogram, total = noted
    count = sum(histogram)
    found: dict[str, Any] = {"count": count, "mean_us": round(total / max(count, 1) / 1000, 1)}
    for percent in PERCENTILES:
        found[f"p{percent}_us"] = round(percentile(histogram, percent) / 1000, 1)
    return found
