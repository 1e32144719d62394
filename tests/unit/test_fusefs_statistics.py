"""Counters and latency histograms of a mount."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from fusefs.statistics import BUCKETS, KEPT_ERRORS, Statistics, percentile


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=50), st.sampled_from([1, 50, 90, 99, 100]))
def test_a_percentile_is_at_most_41_percent_too_high(latencies, percent):
    statistics = Statistics()
    for latency in latencies:
        statistics.note("read", latency)
    row = statistics.report()["requests"]["read"]
    assert row["count"] == len(latencies)
    assert row["mean_us"] == round(sum(latencies) / len(latencies) / 1000, 1)
    histogram = statistics._histograms["read"][:BUCKETS]
    exact = sorted(latencies)[-(-len(latencies) * percent // 100) - 1]
    assert exact <= percentile(histogram, percent) <= max(exact * 1.415, 1)


def test_nothing_noted():
    report = Statistics().report()
    assert report["requests"] == {}
    assert report["reads"] == {"from_memory": 0, "from_disk": 0}
    assert percentile([0] * 10, 50) == 0


def test_errors_do_not_pile_up():
    statistics = Statistics()
    for number in range(KEPT_ERRORS * 3):
        statistics.failed("read", 5, OSError(f"number {number}"))
    kept = statistics.report()["last_errors"]
    assert [row["error"] for row in kept] == [
        f"OSError: number {number}" for number in range(KEPT_ERRORS * 2, KEPT_ERRORS * 3)
    ]


def test_the_report_is_json_and_holds_what_others_give():
    statistics = Statistics()
    statistics.sources["open"] = lambda: {"files": 3}
    assert json.loads(json.dumps(statistics.report()))["open"] == {"files": 3}
