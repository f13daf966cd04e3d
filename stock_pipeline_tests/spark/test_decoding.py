"""The decoder against fastavro, on whole and on damaged records."""

import io
import json
import random
import re

import fastavro
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spark.decoding import decode
from stock_pipeline_tests.messages import SCHEMA_PATH

SCHEMA = fastavro.parse_schema(json.loads(SCHEMA_PATH.read_text()))
CONDITIONS = fastavro.parse_schema(["null", {"type": "array", "items": "string"}])

TOO_LONG = re.compile(rb"[\x80-\xff]{10}")
"""A long of more than ten bytes, which the specification does not know and fastavro reads."""

trades = st.fixed_dictionaries(
    {
        "s": st.text(max_size=70),
        "p": st.floats(),
        "t": st.integers(-(2**63), 2**63 - 1),
        "v": st.floats(),
        "c": st.none() | st.lists(st.text(max_size=3), max_size=3),
    }
)
messages = st.fixed_dictionaries({"type": st.sampled_from(["trade", "ping", ""]), "data": st.lists(trades, max_size=9)})


def encode(message: dict) -> bytes:
    target = io.BytesIO()
    fastavro.schemaless_writer(target, SCHEMA, message)
    return target.getvalue()


def ours(values: list[bytes | None]) -> list[dict | None]:
    """The records; None for one that cannot be read, or that holds what is no text."""
    found, records = decode(pa.array(values, pa.binary())), []
    elements = zip(found.symbol, found.price, found.time, found.volume, found.conditions, strict=True)
    for number, kind in enumerate(found.kind):
        mine = [next(elements) for _ in range(found.trades[number])]
        try:
            data = [
                {
                    "s": found.symbols[symbol].decode(),
                    "p": float(price),
                    "t": int(time),
                    "v": float(volume),
                    "c": fastavro.schemaless_reader(io.BytesIO(found.condition_lists[conditions]), CONDITIONS, None),
                }
                for symbol, price, time, volume, conditions in mine
            ]
            records.append({"type": found.kinds[kind].decode(), "data": data} if kind >= 0 else None)
        except UnicodeDecodeError:
            records.append(None)
    assert list(found.record) == [n for n, count in enumerate(found.trades) for _ in range(count)]
    assert list(found.index) == [index for count in found.trades for index in range(count)]
    return records


def theirs(value: bytes | None) -> dict | None:
    try:
        return fastavro.schemaless_reader(io.BytesIO(value or b""), SCHEMA, None)
    except (EOFError, ValueError, IndexError, OverflowError, MemoryError):
        return None


@settings(deadline=None)
@given(st.lists(messages, max_size=5))
def test_whole_records(batch: list[dict]):
    values = [encode(message) for message in batch]
    # NaN is not equal to itself.
    assert repr(ours(values)) == repr([theirs(value) for value in values])


@settings(deadline=None)
@given(st.lists(messages, min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_damaged_records(batch: list[dict], chance: random.Random):
    values = []
    for message in batch:
        value = bytearray(encode(message))
        for _ in range(chance.randint(0, 3)):
            place = chance.randint(0, len(value))
            value[place : place + chance.randint(0, 3)] = chance.randbytes(chance.randint(0, 3))
        values.append(bytes(value))
    for value, record in zip(values, ours(values), strict=True):
        assert repr(record) == repr(theirs(value)) or (record is None and TOO_LONG.search(value))


def test_blocks_with_their_size():
    """What another writer may do: a negative count, followed by the bytes of the block."""
    one = encode({"type": "trade", "data": [{"s": "A", "p": 1.0, "t": 2, "v": 3.0, "c": None}]})
    head, count, trade = one[:6], one[6:7], one[7:-1]
    assert count == b"\x02"
    sized = head + b"\x01" + bytes([2 * len(trade)]) + trade + b"\x02" + trade + b"\x00"
    assert ours([sized]) == [theirs(sized)]
    assert len(theirs(sized)["data"]) == 2


@pytest.mark.parametrize("offset", [0, 1, 2])
def test_a_part_of_an_array(offset: int):
    values = [encode({"type": kind, "data": []}) for kind in ("a", "b", "c")]
    found = decode(pa.array([*values, None], pa.binary())[offset:])
    assert [found.kinds[kind].decode() for kind in found.kind[:-1]] == ["a", "b", "c"][offset:]
    assert found.kind[-1] == -1


def test_a_record_that_claims_more_than_it_holds():
    """Its reading ends with its bytes: two billion empty trades or codes would never end."""
    billions = b"\xfe\xff\xff\xff\x0f"
    trade = b"\x02A" + bytes(8) + b"\x00" + bytes(8)
    assert ours([b"\x0atrade" + billions, b"\x0atrade\x02" + trade + b"\x02" + billions + bytes(1000)]) == [None, None]
