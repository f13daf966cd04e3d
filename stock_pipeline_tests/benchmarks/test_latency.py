from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from benchmarks.latency import summary, with_bars

MINUTE = datetime(2026, 11, 30, 12, tzinfo=UTC)


def at(second: float) -> datetime:
    return MINUTE + timedelta(seconds=second)


def test_a_trade_is_in_its_bar_from_the_first_version_on_that_counts_it() -> None:
    rows = pd.DataFrame(
        [("A", at(1), 0.1), ("B", at(2), 0.1), ("A", at(3), 0.1), ("A", at(4), 0.1), ("A", at(61), 0.1)],
        columns=["symbol", "event_time", "latency"],
    )
    # The minute's first two trades of A came in one batch, the third was in no bar that anybody saw.
    versions = pd.DataFrame(
        [("A", MINUTE, 2, at(3.5)), ("B", MINUTE, 1, at(3.6)), ("A", at(60), 1, at(61.5))],
        columns=["symbol", "minute", "ticks", "committed_at"],
    )
    found = with_bars(rows, versions).sort_values("event_time")
    assert [None if pd.isna(moment) else moment for moment in found["committed_at"]] == [
        at(3.5),
        at(3.6),
        at(3.5),
        None,
        at(61.5),
    ]


def test_nobody_saw_a_bar() -> None:
    rows = pd.DataFrame([("A", at(1), 0.1)], columns=["symbol", "event_time", "latency"])
    versions = pd.DataFrame([], columns=["symbol", "minute", "ticks", "committed_at"])
    assert with_bars(rows, versions)["committed_at"].isna().all()


def test_what_is_not_stored_in_the_end_counts_with_the_least_that_it_has_waited() -> None:
    # One trade a second, of which only the first three seconds' are there, each after 2 s, and the first in a bar.
    rows = pd.DataFrame([("A", at(s), 2.0) for s in range(3)], columns=["symbol", "event_time", "latency"])
    versions = pd.DataFrame([("A", MINUTE, 1, at(5))], columns=["symbol", "minute", "ticks", "committed_at"])
    assert summary(rows, versions, at(0), at(9), rate=1, settle=15) == {
        "stored": 0.333,
        "in_bar": 0.111,
        "row": {"p50": 15, "p95": 15, "p99": 15},
        # The second and third trades are in none 15 s after the ninth second: 23 and 22 s.
        "bar": pytest.approx({"p50": 15, "p95": 22.6, "p99": 22.92}),
        "later": 7.5,
    }


def test_nothing_is_stored() -> None:
    rows = pd.DataFrame([], columns=["symbol", "event_time", "latency"])
    versions = pd.DataFrame([], columns=["symbol", "minute", "ticks", "committed_at"])
    delays = {"p50": 15, "p95": 15, "p99": 15}
    assert summary(rows, versions, at(0), at(9), rate=1, settle=15) == {
        "stored": 0,
        "in_bar": 0,
        "row": delays,
        "bar": delays,
        "later": 1,
    }
