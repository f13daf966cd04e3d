"""What a symbol is, told by the venue that Finnhub writes before it."""

from dataclasses import dataclass
from typing import Literal

AssetClass = Literal["stock", "crypto", "forex"]

FOREX_VENUES = ("OANDA", "IC MARKETS", "ICM", "FXCM", "FOREX.COM", "FXPRO", "PEPPERSTONE")
"""Venues of currency pairs; every other one is a crypto exchange."""

STOCK_CALENDAR = "XNYS"


@dataclass(frozen=True)
class Instrument:
    """A row of the table instrument.

    Attributes:
        calendar: name in exchange_calendars.
        periods_per_year: bars of one minute in a year of trading.
    """

    symbol: str
    asset_class: AssetClass
    calendar: str
    periods_per_year: int


def instrument(symbol: str) -> Instrument:
    """The instrument of a symbol: `BINANCE:BTCUSDT` is crypto, `OANDA:EUR_USD` forex, `AAPL` a stock."""
    venue, separator, _ = symbol.partition(":")
    if not separator:
        return Instrument(symbol, "stock", STOCK_CALENDAR, 252 * 390)
    if venue in FOREX_VENUES:
        return Instrument(symbol, "forex", "24/5", 260 * 1440)
    return Instrument(symbol, "crypto", "24/7", 365 * 1440)
