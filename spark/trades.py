"""From Kafka records to trades, and to the reasons why something is none.

The rules are those of stock_pipeline.ingest.trade: what the producer let through is checked again, since
anyone may write to the topic.
"""

import json
from collections.abc import Mapping

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.avro.functions import from_avro

from stock_pipeline.ingest.trade import EARLIEST_TIME, LEAST, MAX_AHEAD, MAX_SYMBOL_LENGTH, MAX_TRADES_PER_MESSAGE, MOST
from stock_pipeline.settings import Settings

PRINTABLE = rf"^(?:[^\p{{C}}\p{{Z}}]| ){{1,{MAX_SYMBOL_LENGTH}}}\z"
"""Java's regular expression for what Python's str.isprintable accepts."""

LATEST_TIME = 253_370_764_800_000
"""1 January 9999, UNIX milliseconds: keeps the conversion of a rejected time from overflowing."""

MAX_OFFSETS_PER_TRIGGER = 200_000
"""Most Kafka records in one batch, so that newest data is seen soon after an outage."""


def read_topic(spark: SparkSession, settings: Settings, starting_offsets: str) -> DataFrame:
    """The topic as a stream of Kafka records.

    Args:
        starting_offsets: `earliest` or JSON, for a stream without a checkpoint.
    """
    options = _kafka_options(settings) | {"startingOffsets": starting_offsets}
    return (
        spark.readStream.format("kafka")
        .options(**options)
        .option("maxOffsetsPerTrigger", MAX_OFFSETS_PER_TRIGGER)
        .load()
    )


def read_records(
    spark: SparkSession, settings: Settings, begin: Mapping[int, int], end: Mapping[int, int]
) -> DataFrame:
    """The topic's records from `begin` to before `end`, offsets by partition."""
    places = {"startingOffsets": begin, "endingOffsets": end}
    limits = {name: offsets_json(settings, offsets) for name, offsets in places.items()}
    return spark.read.format("kafka").options(**_kafka_options(settings), **limits).load()


def offsets_json(settings: Settings, offsets: Mapping[int, int]) -> str:
    """Offsets by partition, as Spark's Kafka source wants them."""
    return json.dumps({settings.kafka_topic: {str(partition): offset for partition, offset in offsets.items()}})


def _kafka_options(settings: Settings) -> dict[str, str]:
    """What Spark's Kafka source is given; certificates and key as text, since workers have no files of ours."""
    options = {
        "kafka.bootstrap.servers": settings.kafka_bootstrap_servers,
        "kafka.default.api.timeout.ms": "20000",
        "kafka.request.timeout.ms": "10000",
        "kafka.security.protocol": settings.kafka_security_protocol,
        "subscribe": settings.kafka_topic,
        "failOnDataLoss": "true",
    }
    if settings.kafka_sasl_username and settings.kafka_sasl_password:
        options["kafka.sasl.mechanism"] = settings.kafka_sasl_mechanism
        options["kafka.sasl.jaas.config"] = _login(
            settings.kafka_sasl_mechanism, settings.kafka_sasl_username, settings.kafka_sasl_password.get_secret_value()
        )
    if settings.kafka_ssl_ca:
        options["kafka.ssl.truststore.type"] = "PEM"
        options["kafka.ssl.truststore.certificates"] = settings.kafka_ssl_ca.read_text()
    if settings.kafka_ssl_certificate and settings.kafka_ssl_key:
        options["kafka.ssl.keystore.type"] = "PEM"
        options["kafka.ssl.keystore.certificate.chain"] = settings.kafka_ssl_certificate.read_text()
        options["kafka.ssl.keystore.key"] = settings.kafka_ssl_key.read_text()
    return options


def _login(mechanism: str, username: str, password: str) -> str:
    """A login in the language of Java's JAAS."""
    module = "plain.PlainLoginModule" if mechanism == "PLAIN" else "scram.ScramLoginModule"
    user, word = (text.replace("\\", "\\\\").replace('"', '\\"') for text in (username, password))
    return f'org.apache.kafka.common.security.{module} required username="{user}" password="{word}";'


def explode_trades(records: DataFrame, settings: Settings) -> DataFrame:
    """One row for each trade, and one for each record or element that is none.

    Returns:
        symbol, price, event_time, volume, seq, conditions, received_at of the trade; reason: null for a trade;
        for what is none also value (the whole record), topic, partition, offset, index (null: the whole record).
    """
    received_ms = F.unix_millis("timestamp")
    schema = json.dumps(settings.avro_schema)
    decoded = records.withColumn("message", from_avro(F.col("value"), schema, {"mode": "PERMISSIVE"}))
    kind = F.col("message.type")
    record_reason = (
        F.when(F.col("value").isNull(), "empty record")
        .when(kind.isNull(), "not Avro of this schema")
        .when(kind != "trade", F.concat(F.lit("unknown message type: "), F.make_valid_utf8(F.left(kind, F.lit(64)))))
        .when(F.size("message.data") > MAX_TRADES_PER_MESSAGE, f"more than {MAX_TRADES_PER_MESSAGE} trades")
        .when(F.size("message.data") == 0, "no trades")
    )
    elements = decoded.withColumn("record_reason", record_reason).select(
        "*", F.posexplode_outer(F.when(F.col("record_reason").isNull(), F.col("message.data"))).alias("index", "trade")
    )
    price, volume = F.col("trade.p"), F.col("trade.v")
    time, conditions = F.col("trade.t"), F.col("trade.c")
    reason = (
        F.when(F.col("record_reason").isNotNull(), F.col("record_reason"))
        .when(~_is_text(F.col("trade.s")), f"s is not 1 to {MAX_SYMBOL_LENGTH} printable characters")
        # NaN is greater than every number to Spark.
        .when(~price.between(LEAST, MOST), f"p is not a finite number above 0 ({LEAST:g} to {MOST:g})")
        .when(
            ~((volume == 0) | volume.between(LEAST, MOST)),
            f"v is not a finite number of at least 0 (0, or {LEAST:g} to {MOST:g})",
        )
        .when(time < EARLIEST_TIME, "t is before 1990")
        .when(time > received_ms + MAX_AHEAD, f"t is more than {MAX_AHEAD // 1000} s after receipt")
        .when(F.exists(conditions, lambda code: ~_is_text(code)), "c is no list of printable strings")
    )
    return elements.withColumn("reason", reason).select(
        F.col("trade.s").alias("symbol"),
        F.col("trade.p").alias("price"),
        F.timestamp_millis(F.least(F.greatest(time, F.lit(0)), F.lit(LATEST_TIME))).alias("event_time"),
        F.col("trade.v").alias("volume"),
        (F.shiftleft(F.col("offset"), 22) + F.shiftleft(F.col("partition").cast("long"), 12) + F.col("index")).alias(
            "seq"
        ),
        conditions.alias("conditions"),
        F.col("timestamp").alias("received_at"),
        "reason",
        F.when(F.col("reason").isNotNull(), F.coalesce("value", F.lit(b""))).alias("value"),
        "topic",
        "partition",
        "offset",
        "index",
    )


def _is_text(value: Column) -> Column:
    return F.is_valid_utf8(value) & value.rlike(PRINTABLE)
