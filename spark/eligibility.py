"""What a trade may do to its bar, by its condition codes: the tables trade_condition and market_session for workers."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import psycopg
import pyarrow as pa
import pyarrow.compute as pc

from stock_pipeline.settings import Settings
from stock_pipeline.sql_files import load_sql

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Updates:
    """Of each trade, what of its bar it updates."""

    high_low: Mask
    last: Mask
    volume: Mask


@dataclass(frozen=True)
class Eligibility:
    """The rules, as they were when the query began.

    Attributes:
        no_high_low, no_last, no_volume: codes of trades that may not update these.
        extended_only: codes of trades that set prices only outside the regular session.
        opens, closes: of the regular sessions of stocks, in order, in minutes since 1970.
    """

    no_high_low: Sequence[str] = ()
    no_last: Sequence[str] = ()
    no_volume: Sequence[str] = ()
    extended_only: Sequence[str] = ()
    opens: Sequence[int] = field(default=(), repr=False)
    closes: Sequence[int] = field(default=(), repr=False)

    def judge(self, trades: pa.Table) -> Updates:
        """What each trade updates: symbol, event_time, conditions."""
        sets_no_price = self._sets_no_price(trades)
        return Updates(
            high_low=~(sets_no_price | _has(trades, self.no_high_low)),
            last=~(sets_no_price | _has(trades, self.no_last)),
            volume=~_has(trades, self.no_volume),
        )

    def _sets_no_price(self, trades: pa.Table) -> Mask:
        """Whether a trade of extended hours lies in a regular session; what is no stock is always in session."""
        is_extended = _has(trades, self.extended_only)
        if not is_extended.any():
            return is_extended
        minute = trades["event_time"].cast(pa.int64()).to_numpy() // 60_000_000
        is_stock = ~pc.match_substring(trades["symbol"], ":").to_numpy()
        session = np.searchsorted(self.opens, minute, side="right") - 1
        in_session = (session >= 0) & (minute < np.array([*self.closes, 0])[session])
        sets_no_price: Mask = is_extended & (~is_stock | in_session)
        return sets_no_price


EVERY_TRADE = Eligibility()
"""Every trade updates everything."""


def load_eligibility(settings: Settings) -> Eligibility:
    """The rules of the setting bar_eligibility, from the database.

    Raises:
        psycopg.OperationalError: the database cannot be reached.
    """
    if settings.bar_eligibility == "all":
        return EVERY_TRADE
    with psycopg.connect(settings.conninfo("writer")) as connection:
        conditions = connection.execute(load_sql("queries/select_trade_conditions.sql")).fetchall()
        sessions = connection.execute(load_sql("queries/select_stock_sessions.sql")).fetchall()
    return Eligibility(
        no_high_low=[code for code, high_low, _, _, _ in conditions if not high_low],
        no_last=[code for code, _, last, _, _ in conditions if not last],
        no_volume=[code for code, _, _, volume, _ in conditions if not volume],
        extended_only=[code for code, *_, session in conditions if session == "extended"],
        opens=[opens for opens, _ in sessions],
        closes=[closes for _, closes in sessions],
    )


def _has(trades: pa.Table, codes: Sequence[str]) -> Mask:
    """Whether one of the trade's condition codes is among these."""
    found = np.zeros(len(trades), bool)
    conditions = trades["conditions"].combine_chunks()
    if codes and conditions.null_count < len(conditions):
        is_one = pc.is_in(pc.list_flatten(conditions), pa.array(codes, pa.string()))
        found[pc.list_parent_indices(conditions).filter(is_one).to_numpy()] = True
    return found
