"""The workers' rules of what a trade is, against the producer's, and what they say of records that are none."""

import io
from datetime import UTC, datetime

import fastavro
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from spark.topic import RECORD
from spark.trades import place_of, read_trades
from stock_pipeline.errors import NotATrade
from stock_pipeline.ingest.trade import EARLIEST_TIME, MAX_AHEAD, check_trade
from stock_pipeline_tests.messages import encode, trade
from stock_pipeline_tests.spark.test_decoding import SCHEMA

RECEIVED = 1_764_000_000_000

numbers = st.floats() | st.sampled_from([0.0, -0.0, 1e-100, 1e100, 1e-101, 1.1e100, 5.0])
texts = st.text(max_size=5) | st.sampled_from(
    ["A", "BINANCE:BTCUSDT", "x" * 64, "x" * 65, "\x00", "\u2028", "\ue000", "é", " "]
)
elements = st.fixed_dictionaries(
    {
        "s": texts,
        "p": numbers,
        "t": st.integers(-(2**63), 2**63 - 1)
        | st.sampled_from([EARLIEST_TIME - 1, EARLIEST_TIME, RECEIVED + MAX_AHEAD, RECEIVED + MAX_AHEAD + 1]),
        "v": numbers,
        "c": st.none() | st.lists(texts, max_size=3),
    }
)


def records(*values: bytes | None, partition: int = 3, first_offset: int = 100) -> pa.RecordBatch:
    received = datetime.fromtimestamp(RECEIVED / 1000, UTC)
    columns = {
        "value": pa.array(values, pa.binary()),
        "topic": pa.array(["stock-ticks"] * len(values), pa.string()),
        "partition": pa.array([partition] * len(values), pa.int32()),
        "offset": pa.array(range(first_offset, first_offset + len(values)), pa.int64()),
        "timestamp": pa.array([received] * len(values), pa.timestamp("us", "UTC")),
    }
    assert tuple(columns) == RECORD
    return pa.RecordBatch.from_pydict(columns)


def written(data: list[dict], kind: str = "trade") -> bytes:
    target = io.BytesIO()
    fastavro.schemaless_writer(target, SCHEMA, {"type": kind, "data": data})
    return target.getvalue()


@settings(deadline=None)
@given(st.lists(st.lists(elements, min_size=1, max_size=4), max_size=4))
def test_the_rules_are_those_of_the_producer(batch: list[list[dict]]):
    expected, reasons = [], []
    for number, data in enumerate(batch):
        for index, element in enumerate(data):
            place = {"partition": 3, "offset": 100 + number, "index": index}
            try:
                expected.append((place, check_trade(element, RECEIVED)))
            except NotATrade as error:
                reasons.append((place, str(error)))
    read = read_trades(records(*map(written, batch)))
    found = [
        (
            place_of(row["seq"]),
            {
                "s": row["symbol"],
                "p": row["price"],
                "t": round(row["event_time"].timestamp() * 1000),
                "v": row["volume"],
                "c": row["conditions"],
            },
        )
        for row in read.trades.to_pylist()
    ]
    assert found == expected
    rejected = [
        ({name: row[name] for name in ("partition", "offset", "index")}, row["reason"])
        for row in read.rejected.to_pylist()
    ]
    assert rejected == reasons


def test_records_that_are_rejected_as_a_whole():
    good, many = trade("A", t=RECEIVED), [trade("A", t=RECEIVED)] * 4_096
    values = [
        None,
        b"",
        b"\x01",
        encode(good, kind="ping"),
        written([good], kind="p" * 100),
        encode(),
        encode(*many),
        encode(*many[1:]),
        encode({**good, "p": -1.0}, kind="news"),
    ]
    read = read_trades(records(*values))
    assert read.trades.num_rows == 4_095
    assert read.trades["symbol"].unique().to_pylist() == ["A"]
    rejected = read.rejected.to_pylist()
    assert [(row["offset"] - 100, row["reason"]) for row in rejected] == [
        (0, "empty record"),
        (1, "not Avro of this schema"),
        (2, "not Avro of this schema"),
        (3, "unknown message type: ping"),
        (4, f"unknown message type: {'p' * 64}"),
        (5, "no trades"),
        (6, "more than 4095 trades"),
        (8, "unknown message type: news"),
    ]
    assert [row["value"] for row in rejected] == [values[row["offset"] - 100] or b"" for row in rejected]
    assert {row["index"] for row in rejected} == {None}


def test_texts_that_are_none():
    value = encode(trade("AB", t=RECEIVED, c=["12"]), trade("CD", t=RECEIVED))
    read = read_trades(records(value.replace(b"CD", b"\xff\xfe"), value.replace(b"12", b"\xff1")))
    assert [row["symbol"] for row in read.trades.to_pylist()] == ["AB", "CD"]
    assert [(row["index"], row["reason"]) for row in read.rejected.to_pylist()] == [
        (1, "s is not 1 to 64 printable characters"),
        (0, "c is no list of at most 100 printable strings"),
    ]


def test_no_records():
    read = read_trades(records())
    assert (read.trades.num_rows, read.rejected.num_rows) == (0, 0)
