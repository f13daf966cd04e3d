"""What a symbol is, told by the venue that Finnhub writes before it."""

from dataclasses import dataclass
from typing import Literal

AssetClass = Literal["stock", "crypto", "forex"]

FOREX_VENUES = ("OANDA", "IC MARKETS", "ICM", "FXCM", "FOREX.COM", "FXPRO", "PEPPERSTONE")
"""Venues of currency pairs; every other one is a crypto exchange."""

MARKETS: dict[AssetClass, tuple[str, int]] = {
    "stock": ("XNYS", 252 * 390),
    "crypto": ("24/7", 365 * 1440),
    "forex": ("24/5", 260 * 1440),
}
"""Calendar of each class, by its name in exchange_calendars, and bars of one minute in a year of trading."""


@dataclass(frozen=True)
class Instrument:
    """A row of the table instrument."""

    symbol: str
    asset_class: AssetClass
    calendar: str
    periods_per_year: int


def instrument(symbol: str) -> Instrument:
    """The instrument of a symbol: `BINANCE:BTCUSDT` is crypto, `OANDA:EUR_USD` forex, `AAPL` a stock."""
    venue, separator, _ = symbol.partition(":")
    asset_class: AssetClass = "stock" if not separator else "forex" if venue in FOREX_VENUES else "crypto"
    return Instrument(symbol, asset_class, *MARKETS[asset_class])
