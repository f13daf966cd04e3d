"""Messages as another producer would write them: by Apache's own Avro library, which the product does not use."""

import io
import time
from pathlib import Path

import avro.io
import avro.schema

import stock_pipeline.ingest

SCHEMA_PATH = Path(stock_pipeline.ingest.__file__).parent / "trade.avsc"
SCHEMA = avro.schema.parse(SCHEMA_PATH.read_text())


def encode(*trades: dict, kind: str = "trade") -> bytes:
    target = io.BytesIO()
    avro.io.DatumWriter(SCHEMA).write({"type": kind, "data": list(trades)}, avro.io.BinaryEncoder(target))
    return target.getvalue()


def decode(value: bytes) -> dict:
    return avro.io.DatumReader(SCHEMA).read(avro.io.BinaryDecoder(io.BytesIO(value)))


def trade(symbol: str, **changes: object) -> dict:
    return {"s": symbol, "p": 10.0, "t": time.time_ns() // 1_000_000, "v": 1.0, "c": None} | changes
