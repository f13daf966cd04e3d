"""Which elements of a frame of Finnhub are trades, and how it becomes messages.

Protocol: Finnhub's WebSocket documentation, "Trades".
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeGuard

from stock_pipeline.errors import NotATrade
from stock_pipeline.ingest.message import MAX_MESSAGE_BYTES, Trade, encode

EARLIEST_TIME = 631_152_000_000
"""1 January 1990, UNIX milliseconds: no trade of Finnhub is older."""

MAX_AHEAD = 60_000
"""How many milliseconds after its receipt a trade may claim to be: one far ahead would poison the watermark."""

LEAST, MOST = 1e-100, 1e100
"""What a market's prices and volumes lie between: PostgreSQL refuses products of numbers further out."""

MAX_SYMBOL_LENGTH = 64

MAX_CONDITIONS = 100
"""Codes of one trade: with all of them a trade is still a small part of a message."""

MAX_TRADES_PER_MESSAGE = 4095
"""The index in a message has 12 bits in a trade's seq."""

CONTROL_TYPES = ("ping", "error")


class Message(NamedTuple):
    """Trades of one symbol from one frame: one Kafka message.

    Attributes:
        newest_ms: the latest of their times, UNIX milliseconds.
    """

    symbol: str
    value: bytes
    trades: int
    newest_ms: int


@dataclass(frozen=True)
class Rejected:
    """What a frame held that is no trade."""

    raw: bytes
    reason: str


@dataclass(frozen=True)
class Frame:
    """A decoded frame. `control` is the whole frame where it is a ping or an error."""

    messages: Sequence[Message] = ()
    rejected: Sequence[Rejected] = ()
    control: Mapping[str, Any] | None = None


def check_trade(element: object, received_ms: int) -> Trade:
    """The trade in an element of a frame's data.

    Raises:
        NotATrade: with the reason.
    """
    if not isinstance(element, dict):
        raise NotATrade("the trade is no object")
    symbol, price, time, volume, conditions = map(element.get, "sptvc")
    if None in (symbol, price, time, volume):
        missing = [name for name in "sptv" if element.get(name) is None]
        raise NotATrade(f"field missing: {', '.join(missing)}")
    if not is_text(symbol):
        raise NotATrade(f"s is not 1 to {MAX_SYMBOL_LENGTH} printable characters")
    price, volume = _number("p", price), _number("v", volume)
    if not LEAST <= price <= MOST:
        raise NotATrade(f"p is not a finite number above 0 ({LEAST:g} to {MOST:g})")
    if volume != 0 and not LEAST <= volume <= MOST:
        raise NotATrade(f"v is not a finite number of at least 0 (0, or {LEAST:g} to {MOST:g})")
    if not isinstance(time, int) or isinstance(time, bool):
        raise NotATrade("t is no whole number of milliseconds")
    if time < EARLIEST_TIME:
        raise NotATrade("t is before 1990")
    if time > received_ms + MAX_AHEAD:
        raise NotATrade(f"t is more than {MAX_AHEAD // 1000} s after receipt")
    if conditions is not None and not is_conditions(conditions):
        raise NotATrade(f"c is no list of at most {MAX_CONDITIONS} printable strings")
    return {"s": symbol, "p": price, "t": time, "v": volume, "c": conditions}


def is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and 1 <= len(value) <= MAX_SYMBOL_LENGTH and value.isprintable()


def is_conditions(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and len(value) <= MAX_CONDITIONS and all(map(is_text, value))


def _number(name: str, value: object) -> float:
    if type(value) is float:
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise NotATrade(f"{name} is no number")
    try:
        return float(value)
    except OverflowError as error:
        raise NotATrade(f"{name} is not a finite number") from error


def read_frame(raw: bytes, received_ms: int) -> Frame:
    """Split a frame into a message for each symbol, and what is no trade.

    The trades of a symbol keep their order. More than a message may hold become several messages.
    """
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        return Frame(rejected=[Rejected(raw, f"no JSON: {error}")])
    kind = content.get("type") if isinstance(content, dict) else None
    if kind in CONTROL_TYPES:
        return Frame(control=content)
    if kind != "trade":
        return Frame(rejected=[Rejected(raw, f"unknown message type: {str(kind)[:64]}")])
    if not isinstance(content.get("data"), list):
        return Frame(rejected=[Rejected(raw, "data is no list")])
    by_symbol: dict[str, list[Trade]] = {}
    rejected = []
    for element in content["data"]:
        try:
            trade = check_trade(element, received_ms)
        except NotATrade as error:
            rejected.append(Rejected(json.dumps(element).encode(), str(error)))
        else:
            by_symbol.setdefault(trade["s"], []).append(trade)
    messages = [
        message
        for symbol, trades in by_symbol.items()
        for start in range(0, len(trades), MAX_TRADES_PER_MESSAGE)
        for message in _messages(symbol, trades[start : start + MAX_TRADES_PER_MESSAGE])
    ]
    return Frame(messages=messages, rejected=rejected)


def _messages(symbol: str, trades: Sequence[Trade]) -> Iterator[Message]:
    """One message or, where that is too long, those of both halves."""
    value = encode(trades)
    if len(value) <= MAX_MESSAGE_BYTES:
        yield Message(symbol, value, len(trades), max(trade["t"] for trade in trades))
    else:
        middle = len(trades) // 2
        yield from _messages(symbol, trades[:middle])
        yield from _messages(symbol, trades[middle:])
