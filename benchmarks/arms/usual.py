"""The usual way, written afresh: Spark with its defaults, ticks by JDBC without a key, bars row by row.

Its tables are benchmark.usual_tick and benchmark.usual_bar; see tables.sql.
"""

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from functools import partial

import psycopg
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.avro.functions import from_avro
from pyspark.sql.streaming.query import StreamingQuery
from pyspark.sql.streaming.readwriter import DataStreamWriter

from benchmarks.arm import serve
from benchmarks.usual_jars import usual_jars
from spark.session import prepare_environment
from stock_pipeline.local.downloads import jars
from stock_pipeline.settings import load_settings

SETTINGS = load_settings()
INSERT = """
INSERT INTO benchmark.usual_bar (timestamp, symbol, open, high, low, close, volume, ticks)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (timestamp, symbol) DO UPDATE SET
    open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close, volume = excluded.volume,
    ticks = excluded.ticks
"""


def session() -> SparkSession:
    prepare_environment(SETTINGS)
    class_path = f"{jars() / 'spark'}/*:{usual_jars()}/*"
    builder = SparkSession.builder.master(SETTINGS.spark_master).config("spark.driver.extraClassPath", class_path)
    builder = builder.config("spark.driver.memory", "1g").config("spark.ui.enabled", "false")
    return builder.config("spark.sql.session.timeZone", "UTC").getOrCreate()


SPARK = session()


def trades(topic: str) -> DataFrame:
    source = SPARK.readStream.format("kafka").option("kafka.bootstrap.servers", SETTINGS.kafka_bootstrap_servers)
    records = source.option("subscribe", topic).option("startingOffsets", "earliest").load()
    message = from_avro("value", json.dumps(SETTINGS.avro_schema))
    trade = records.select(F.explode(message.getField("data")).alias("trade"))
    return trade.select(
        F.col("trade.s").alias("symbol"),
        F.col("trade.p").alias("price"),
        F.timestamp_millis("trade.t").alias("event_time"),
        F.col("trade.v").alias("volume"),
    )


def write_ticks(batch: DataFrame, _batch_id: int) -> None:
    host, port = SETTINGS.db_address
    target = batch.write.format("jdbc").option("url", f"jdbc:postgresql://{host}:{port}/{SETTINGS.db_name}")
    user, password = SETTINGS.role("owner")
    login = {"user": user, "password": password or ""}
    target.options(driver="org.postgresql.Driver", dbtable="benchmark.usual_tick", **login).mode("append").save()


def write_bars(batch: DataFrame, _batch_id: int) -> None:
    rows = batch.toPandas()
    with closing(psycopg.connect(SETTINGS.conninfo("owner"))) as connection:
        for row in rows.itertuples(index=False):
            connection.execute(INSERT, list(row))
        connection.commit()


def bars(topic: str) -> DataFrame:
    window = F.window("event_time", "1 minute")
    grouped = trades(topic).withWatermark("event_time", "1 minute").groupBy(window.alias("window"), "symbol")
    return grouped.agg(
        F.first("price").alias("open"),
        F.max("price").alias("high"),
        F.min("price").alias("low"),
        F.last("price").alias("close"),
        F.sum("volume").alias("volume"),
        F.count("*").alias("ticks"),
    ).select("window.start", "symbol", "open", "high", "low", "close", "volume", "ticks")


def ticks_query(topic: str) -> DataStreamWriter:
    return trades(topic).writeStream.queryName("usual-ticks").foreachBatch(write_ticks)


def bars_query(topic: str) -> DataStreamWriter:
    return bars(topic).writeStream.queryName("usual-bars").outputMode("update").foreachBatch(write_bars)


def start(query: Callable[[str], DataStreamWriter], topic: str, **trigger: bool) -> StreamingQuery:
    folder = SETTINGS.home / "checkpoints" / query.__name__
    shutil.rmtree(folder, ignore_errors=True)
    writer = query(topic).option("checkpointLocation", folder.as_uri())
    return (writer.trigger(**trigger) if trigger else writer).start()


def catch_up(query: Callable[[str], DataStreamWriter], topic: str) -> None:
    start(query, topic, availableNow=True).awaitTermination()


def decode(topic: str) -> None:
    trades(topic).writeStream.format("noop").trigger(availableNow=True).start().awaitTermination()


def live(query: Callable[[str], DataStreamWriter], topic: str) -> None:
    start(query, topic)


if __name__ == "__main__":
    SPARK.sparkContext.setLogLevel("ERROR")
    serve(
        {
            "ticks": partial(catch_up, ticks_query),
            "bars": partial(catch_up, bars_query),
            "decode": decode,
            "live_ticks": partial(live, ticks_query),
            "live_bars": partial(live, bars_query),
        }
    )
