"""What became of the market's trades: in tick_data once, within a gap that was written down, or lost."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from stock_pipeline_tests.conftest import Stack
from stock_pipeline_tests.expected_bars import COLUMNS, bars_frame, expected_bars
from stock_pipeline_tests.faults.market import SYMBOLS, Exchange, Numbered, price

SUBSCRIBED_WITHIN = 1_000
"""Milliseconds from the moment when the producer has subscribed, where its gap ends, until the market sends."""

GAPS = """
SELECT extract(EPOCH FROM started)::float * 1000, extract(EPOCH FROM coalesce(ended, now()))::float * 1000, cause
FROM feed_gap
WHERE symbol IS NULL
ORDER BY started
"""

BARS = f"SELECT timestamp, symbol, {', '.join(COLUMNS)} FROM ohlcv_data"


@dataclass(frozen=True)
class Verdict:
    """Counts of trades and bars.

    Attributes:
        lost: sent by the market, not stored, in no gap.
        doubled: rows of tick_data beyond the first of a trade.
        altered: rows that are no trade of the market.
        wrong_bars: bars that differ from those that pandas makes of the stored trades, are missing or too many.
        swallowed: sent, not stored, within a gap.
        unexplained: trades that were due while nobody was connected, in no gap.
        gap_seconds: length of all gaps.
        outage_seconds: how long the market's trades did not arrive.
    """

    stored: int
    lost: int
    doubled: int
    altered: int
    wrong_bars: int
    swallowed: int
    unexplained: int
    gap_seconds: float
    outage_seconds: float

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.doubled or self.altered or self.wrong_bars or self.unexplained)


def judge(stack: Stack, exchange: Exchange, last: int) -> Verdict:
    """Compare once everything has arrived.

    Args:
        last: number of the last trade that was due.
    """
    replay = exchange.replay
    rows = stack.query("SELECT volume, symbol, price, extract(EPOCH FROM event_time)::float8 * 1000 FROM tick_data")
    stored = pd.DataFrame(rows, columns=["number", "symbol", "price", "time"])
    numbers = stored["number"].to_numpy(dtype=np.int64) - 1
    times = np.floor(replay.time(numbers))
    altered = (
        (stored["symbol"] != np.array(SYMBOLS)[numbers % len(SYMBOLS)])
        | (stored["price"] != np.array([price(int(number)) for number in numbers]))
        | (stored["time"].round() != times)
    )
    unique = np.unique(numbers)
    missing = np.setdiff1d(np.arange(unique[0], last + 1), unique)
    # A market that is late sends after the time when a trade was due.
    sent = pd.Series(exchange.market.sent_at, exchange.market.sent).groupby(level=0).max().reindex(missing).to_numpy()
    is_sent = ~np.isnan(sent)
    moment = np.floor(np.where(is_sent, sent, replay.due(missing)))
    in_gap, in_wider_gap, seconds = np.zeros(len(missing), bool), np.zeros(len(missing), bool), 0.0
    for started, ended, _ in stack.query(GAPS):
        # PostgreSQL keeps microseconds, the market milliseconds.
        begins = np.floor(started)
        in_gap |= (moment >= begins) & (moment <= ended)
        in_wider_gap |= (moment >= begins) & (moment <= ended + SUBSCRIBED_WITHIN)
        seconds += (ended - started) / 1000
    return Verdict(
        stored=len(unique),
        lost=int((is_sent & ~in_gap).sum()),
        doubled=len(numbers) - len(unique),
        altered=int(altered.sum()),
        wrong_bars=_wrong_bars(stack, unique, replay),
        swallowed=int((is_sent & in_gap).sum()),
        unexplained=int((~is_sent & ~in_wider_gap).sum()),
        gap_seconds=seconds,
        outage_seconds=len(missing) / replay.rate,
    )


def _wrong_bars(stack: Stack, numbers: np.ndarray, replay: Numbered) -> int:
    trades = pd.DataFrame(
        {
            "symbol": np.array(SYMBOLS)[numbers % len(SYMBOLS)],
            "price": [price(int(number)) for number in numbers],
            "event_time": pd.to_datetime(np.floor(replay.time(numbers)), unit="ms", utc=True),
            "volume": numbers + 1.0,
            "seq": numbers,
            "conditions": None,
        }
    )
    expected = expected_bars(trades)
    found = bars_frame(stack.query(BARS)).reindex(columns=COLUMNS)
    both = expected.join(found, how="outer", suffixes=("_expected", "_found"))
    is_wrong = np.zeros(len(both), bool)
    for column in COLUMNS:
        tolerance = 1e-9 if column in ("volume", "vwap") else 0.0
        right = np.isclose(
            both[f"{column}_expected"].astype(float), both[f"{column}_found"].astype(float), rtol=tolerance, atol=0.0
        )
        is_wrong |= ~right
    return int(is_wrong.sum())
