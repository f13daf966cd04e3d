"""The streams as they are, and the limit of the bars: the topic read and decoded, and nothing made of it."""

import shutil
from collections.abc import Iterable, Iterator
from functools import partial

import pyarrow as pa

from benchmarks.arm import serve
from spark.offsets import checkpoint_folder
from spark.ohlcv_streaming import OHLCV_STREAM
from spark.session import create_session
from spark.stream import Stream
from spark.tick_streaming import TICK_STREAM
from spark.topic import RECORD, read_topic
from spark.trades import read_trades
from stock_pipeline.settings import load_settings

SETTINGS = load_settings()
SPARK = create_session(SETTINGS, "benchmark")


def catch_up(stream: Stream, topic: str) -> None:
    settings = SETTINGS.model_copy(update={"kafka_topic": topic})
    shutil.rmtree(checkpoint_folder(settings, stream.name), ignore_errors=True)
    stream.start(SPARK, settings, True).awaitTermination()


def decode(topic: str) -> None:
    def count(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield pa.RecordBatch.from_pydict({"trades": [read_trades(batch).trades.num_rows]})

    settings = SETTINGS.model_copy(update={"kafka_topic": topic})
    counts = read_topic(SPARK, settings, "earliest").select(*RECORD).mapInArrow(count, "trades long")
    counts.writeStream.format("noop").trigger(availableNow=True).start().awaitTermination()


if __name__ == "__main__":
    SPARK.sparkContext.setLogLevel("ERROR")
    serve({"ticks": partial(catch_up, TICK_STREAM), "bars": partial(catch_up, OHLCV_STREAM), "decode": decode})
