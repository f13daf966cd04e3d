"""From Kafka records to trades, and to the reasons why something is none.

The rules are those of stock_pipeline.ingest.trade: what the producer let through is checked again, since
anyone may write to the topic.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import fastavro
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from spark.decoding import Decoded, decode
from stock_pipeline.ingest.trade import (
    EARLIEST_TIME,
    LEAST,
    MAX_AHEAD,
    MAX_CONDITIONS,
    MAX_SYMBOL_LENGTH,
    MAX_TRADES_PER_MESSAGE,
    MOST,
    is_conditions,
    is_text,
)

REJECTED = pa.schema(
    {
        "reason": pa.string(),
        "value": pa.binary(),
        "topic": pa.string(),
        "partition": pa.int32(),
        "offset": pa.int64(),
        "index": pa.int32(),
        "received_at": pa.timestamp("us", "UTC"),
    }
)
"""What is no trade: `value` is the whole record, `index` that of the element, null where it is the whole record."""

CONDITIONS = fastavro.parse_schema(["null", {"type": "array", "items": "string"}])


@dataclass(frozen=True)
class Read:
    """What a batch of Kafka records holds: trades with the columns of tick_data, and what is REJECTED."""

    trades: pa.Table
    rejected: pa.Table


Mask = npt.NDArray[np.bool_]
Reasons = npt.NDArray[np.object_]
"""Of each record or element why it is no trade; None where it is one."""


def read_trades(records: pa.RecordBatch) -> Read:
    """Decode and check Kafka records with the columns of RECORD."""
    found = decode(records["value"])
    symbols, condition_lists = [*map(_text, found.symbols)], [*map(_conditions, found.condition_lists)]
    of_record = _judge_records(records, found)
    of_element = _judge_elements(records, found, symbols, condition_lists)
    is_alone = ~_is_given(of_record)[found.record]
    is_trade = is_alone & ~_is_given(of_element)
    # A record that is rejected as a whole has no elements.
    return Read(
        _trades(records, found, symbols, condition_lists, np.flatnonzero(is_trade)),
        _rejected(records, found, of_record, of_element, np.flatnonzero(is_alone & ~is_trade)),
    )


Choice = Callable[[pa.Table], pa.Table]
"""Leaves some of a batch of trades."""


def all_of(trades: pa.Table) -> pa.Table:
    """The choice of every trade."""
    return trades


def _judge_records(records: pa.RecordBatch, found: Decoded) -> Reasons:
    kinds = [kind[:64].decode(errors="replace") for kind in found.kinds]
    # The last is for those that could not be read.
    is_unknown = np.array([kind != b"trade" for kind in found.kinds] + [False])
    unknown = np.array([f"unknown message type: {kind}" for kind in kinds] + [None], object)
    return _first_reason(
        (records["value"].is_null().to_numpy(zero_copy_only=False), "empty record"),
        (found.kind < 0, "not Avro of this schema"),
        (is_unknown[found.kind], unknown[found.kind]),
        (found.trades > MAX_TRADES_PER_MESSAGE, f"more than {MAX_TRADES_PER_MESSAGE} trades"),
        (found.trades == 0, "no trades"),
    )


def _judge_elements(
    records: pa.RecordBatch, found: Decoded, symbols: Sequence[str | None], condition_lists: Sequence[Any]
) -> Reasons:
    price, time, volume = found.price, found.time, found.volume
    received_ms = records["timestamp"].cast(pa.int64()).to_numpy() // 1000
    has_symbol = np.array([is_text(symbol) for symbol in symbols], bool)
    has_conditions = np.array([codes is not NO_CONDITIONS for codes in condition_lists], bool)
    # NaN lies in no range.
    return _first_reason(
        (~has_symbol[found.symbol], f"s is not 1 to {MAX_SYMBOL_LENGTH} printable characters"),
        (~_is_within(price), f"p is not a finite number above 0 ({LEAST:g} to {MOST:g})"),
        (
            ~(_is_within(volume) | (volume == 0)),
            f"v is not a finite number of at least 0 (0, or {LEAST:g} to {MOST:g})",
        ),
        (time < EARLIEST_TIME, "t is before 1990"),
        (time > received_ms[found.record] + MAX_AHEAD, f"t is more than {MAX_AHEAD // 1000} s after receipt"),
        (~has_conditions[found.conditions], f"c is no list of at most {MAX_CONDITIONS} printable strings"),
    )


def _first_reason(*faults: tuple[Mask, Any]) -> Reasons:
    masks, reasons = [mask for mask, _ in faults], [np.array(reason, object) for _, reason in faults]
    return np.select(masks, reasons, np.array(None))


def _is_given(reasons: Reasons) -> Mask:
    given: Mask = reasons != np.array(None)
    return given


def _is_within(values: npt.NDArray[np.float64]) -> Mask:
    return (values >= LEAST) & (values <= MOST)


def _text(value: bytes) -> str | None:
    """None where it is no text."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


NO_CONDITIONS = object()


def _conditions(encoded: bytes) -> Any:
    """A list of codes, None, or NO_CONDITIONS where it is neither."""
    try:
        codes: Any = fastavro.schemaless_reader(io.BytesIO(encoded), CONDITIONS, None)
    except UnicodeDecodeError:
        return NO_CONDITIONS
    return codes if codes is None or is_conditions(codes) else NO_CONDITIONS


def _trades(
    records: pa.RecordBatch,
    found: Decoded,
    symbols: Sequence[str | None],
    condition_lists: Sequence[Any],
    places: npt.NDArray[np.intp],
) -> pa.Table:
    record = found.record[places]
    offset, partition = (records[name].to_numpy().astype(np.int64)[record] for name in ("offset", "partition"))
    lists = [None if codes is NO_CONDITIONS else codes for codes in condition_lists]
    return pa.table(
        {
            "symbol": pa.array(symbols, pa.string()).take(pa.array(found.symbol[places])),
            "price": found.price[places],
            "event_time": pa.array(found.time[places].view("datetime64[ms]")).cast(records["timestamp"].type),
            "volume": found.volume[places],
            "seq": offset << 22 | partition << 12 | found.index[places],
            "conditions": pa.array(lists, pa.list_(pa.string())).take(pa.array(found.conditions[places])),
            "received_at": records["timestamp"].take(pa.array(record)),
        }
    )


def _rejected(
    records: pa.RecordBatch, found: Decoded, of_record: Reasons, of_element: Reasons, elements: npt.NDArray[np.intp]
) -> pa.Table:
    whole = np.flatnonzero(_is_given(of_record))
    origin = records.take(pa.array(np.concatenate((whole, found.record[elements]))))
    columns = {
        "reason": [*of_record[whole], *of_element[elements]],
        "value": origin["value"].fill_null(b""),
        "topic": origin["topic"],
        "partition": origin["partition"],
        "offset": origin["offset"],
        "index": [None] * len(whole) + found.index[elements].tolist(),
        "received_at": origin["timestamp"],
    }
    return pa.table(columns, REJECTED)


def place_of(seq: int) -> dict[str, int]:
    """Where a trade stands in the Kafka log: partition, offset, index in the message."""
    return {"partition": seq >> 12 & 1023, "offset": seq >> 22, "index": seq & 4095}
