"""The Kafka topic as Spark reads it."""

import json
from collections.abc import Mapping

from pyspark.sql import DataFrame, SparkSession

from stock_pipeline.settings import Settings

RECORD = ("value", "topic", "partition", "offset", "timestamp")
"""What the workers need of a Kafka record."""

MAX_OFFSETS_PER_TRIGGER = 200_000
"""Most Kafka records in one batch, so that newest data is seen soon after an outage."""


def read_topic(spark: SparkSession, settings: Settings, starting_offsets: str) -> DataFrame:
    """The topic as a stream of Kafka records.

    Args:
        starting_offsets: `earliest` or JSON, for a stream without a checkpoint.
    """
    options = _kafka_options(settings) | {"startingOffsets": starting_offsets}
    records = (
        spark.readStream.format("kafka")
        .options(**options)
        .option("maxOffsetsPerTrigger", MAX_OFFSETS_PER_TRIGGER)
        .load()
    )
    # A task costs more than what it reads of the topic within a batch: no more of them than can work side by side.
    # How many a cluster's executors can is not known yet.
    return records.coalesce(spark.sparkContext.defaultParallelism) if settings.is_spark_local else records


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
        # Before each read Spark asks for the topic's limits, by the connection on which the consumer still waits for
        # records to come, half a second by default.
        "kafka.fetch.max.wait.ms": "1",
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
