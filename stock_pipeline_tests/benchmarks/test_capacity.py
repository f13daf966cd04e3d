import math

import pytest

from benchmarks.capacity import Work, row
from benchmarks.growth import TRADES
from benchmarks.market import RATE


@pytest.fixture
def results() -> dict:
    """Results of streams that take 3 and 2 µs for a trade, 60 and 160 ms for a batch, 50 and 20 µs for a bar; of
    servers that take 1 and 5 µs for a trade, and 0.15 and 0.1 of a processor for themselves."""
    minutes = math.ceil(TRADES / RATE / 60)

    def point(symbols: int) -> dict:
        bars = symbols * minutes / TRADES
        return {"ticks": {"stream": 3.0}, "bars": {"stream": 2 + 50 * bars, "timescaledb": 1 + 20 * bars}}

    def live(rate: int, p99: float) -> dict:
        streams = {"tick-stream": 0.060 / 0.1 + rate * 3e-6, "ohlcv-stream": 0.160 / 0.2 + rate * 2e-6}
        return {
            "row": {"p99": p99},
            "processor": {**streams, "kafka": 0.15 + rate * 1e-6, "timescaledb": 0.1 + rate * 5e-6},
            "batch_seconds": {"tick-stream": 0.1, "ohlcv-stream": 0.2},
        }

    saturated = live(80_000, 11.0)
    saturated["processor"] |= {"kafka": 0.1, "timescaledb": 0.1}
    return {
        "growth": {"catch_up": {"symbols": {str(n): {"microseconds": point(n)} for n in (50, 500, 5_000)}}},
        "latency": {"r1000": live(1_000, 0.3), "r60000": live(60_000, 1.5), "r80000": saturated},
        "producer": {"microseconds": {"100": 7.0}},
    }


def test_work_is_what_made_the_results(results: dict) -> None:
    work = Work.measured(results)
    assert {part: round(seconds * 1e6, 3) for part, seconds in work.trade.items()} == {
        "producer": 7,
        "kafka": 1,
        "tick stream": 3,
        "TimescaleDB": 5,
        "ohlcv stream": 2,
    }
    assert work.always == pytest.approx({"kafka": 0.15, "TimescaleDB": 0.1})
    assert work.batch == pytest.approx({"tick stream": 0.060, "ohlcv stream": 0.160})
    assert (work.bar, work.bar_row) == pytest.approx((50e-6, 20e-6))


def test_processors_of_a_rate(results: dict) -> None:
    # So many trades that each of the symbols has one in a second.
    used = Work.measured(results).processors(50, 100_000)
    assert used == pytest.approx(
        {
            "producer": 0.7,
            "kafka": 0.15 + 0.1,
            "tick stream": 0.3 + 0.06,
            "TimescaleDB": 0.1 + 0.5,
            "ohlcv stream": 0.2 + 0.16,
            "bars": 50 * 50e-6,
            "rows": 50 * 20e-6,
        }
    )


def test_more_bars_than_two_partitions_of_state_take_are_written_less_often(results: dict) -> None:
    *_, most, goes_on = row(Work.measured(results), 40_000, 1_000_000)
    assert most == "producer"
    assert goes_on.startswith("batches of 10 s: bars 0.2, rows 0.1; ")
    assert goes_on.endswith("; 10 producers")


def test_a_quick_run_has_too_few_rates(results: dict) -> None:
    results["latency"] = {"r1000": results["latency"]["r1000"]}
    with pytest.raises(ValueError, match="1 rates that were held; `make bench` without QUICK measures more"):
        Work.measured(results)
