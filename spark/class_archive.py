"""A class-data archive for Spark's JVM, made once: with it a stream is up in about half the time.

The JVM loads thousands of classes before the first batch; from the archive it maps them into memory, already
verified (JEP 350, dynamic archives). It belongs to one Java, one Spark and one class path, and so lies in the
virtual environment. A JVM that finds that it does not fit goes on without it.
"""

import hashlib
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyspark
from pyspark import SparkContext
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from stock_pipeline.ingest.message import Trade, encode
from stock_pipeline.local.downloads import console, find_java, jars
from stock_pipeline.services.lock import hold
from stock_pipeline.settings import Settings

log = logging.getLogger(__name__)

PREFIX = "spark-classes-"

PATIENCE = 300.0
"""Seconds that making the archive may take."""

REHEARSAL = 30.0
"""Most seconds that one query of the rehearsal may take."""

BATCHES = 3


def archive_path() -> Path:
    """Where the archive for this Java and these jars lies, or would.

    The JVM refuses an archive when one file of its class path was written anew, be it with the same content. It
    compares whole seconds, and the layers of a container image keep no more.
    """
    java = find_java().resolve()
    files = [java, *sorted(jars().glob("spark/*.jar")), *sorted(Path(pyspark.__file__).parent.glob("jars/*.jar"))]
    key = json.dumps([(str(file), file.stat().st_size, int(file.stat().st_mtime)) for file in files])
    return Path(sys.prefix) / f"{PREFIX}{hashlib.sha256(key.encode()).hexdigest()[:12]}.jsa"


def ensure_class_archive() -> None:
    """Make the archive where it is missing. Without it everything works, later."""
    path = archive_path()
    failed = path.with_suffix(".failed")
    if path.exists() or failed.exists():
        return
    with hold(path.with_suffix(".lock"), patience=PATIENCE):
        if path.exists():
            return
        with console.status("preparing Spark for quick starts, once"), tempfile.TemporaryDirectory() as home:
            partial = path.with_suffix(".partial")
            command = [sys.executable, "-m", "spark.class_archive", str(partial), home]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
                problem = done.stdout + done.stderr if done.returncode != 0 or not partial.exists() else None
            except subprocess.TimeoutExpired as error:
                problem = str(error)
        if problem is None:
            partial.rename(path)
            for other in path.parent.glob(f"{PREFIX}*.jsa"):
                if other != path:
                    other.unlink()
        else:
            failed.write_text(problem)
            log.warning(
                "Spark will start slowly, since its class archive could not be made; the reason is in %s", failed
            )


def _rehearse(archive: str, home: str) -> None:
    """Do what the streams do, on made-up records, in a JVM that writes the archive when it ends."""
    from spark.eligibility import Eligibility
    from spark.ohlcv_streaming import build_bars
    from spark.session import create_session
    from spark.sinks import WRITTEN
    from spark.stream import start_query
    from spark.topic import RECORD

    # In this JVM, whatever runs the streams: executors are given its options, and would write to the same file.
    settings = Settings(stock_pipeline_home=home, spark_master="local[2]")
    spark = create_session(settings, "rehearsal", f'-XX:ArchiveClassesAtExit="{archive}"')
    records = _made_up_records(spark)
    bars = build_bars(records, Eligibility(["3"], ["3"], ["16"], ["24"]))

    for name, frame, mode in (("ticks", records.select(*RECORD), "append"), ("bars", bars, "update")):
        query = start_query(frame.mapInArrow(_count, WRITTEN), settings, name, available_now=False, mode=mode)
        deadline = time.monotonic() + REHEARSAL
        while len(query.recentProgress) < BATCHES and time.monotonic() < deadline:
            query.awaitTermination(timeout=1)
        query.stop()
    # Classes of the Kafka source, which needs a broker to run.
    spark.readStream.format("kafka").option("kafka.bootstrap.servers", "x:1").option("subscribe", "x").load()
    spark.stop()
    process = SparkContext._gateway.proc  # type: ignore[union-attr]
    SparkContext._gateway.shutdown()  # type: ignore[union-attr]
    process.stdin.close()
    process.wait(timeout=PATIENCE)


def _count(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """A sink that writes nothing."""
    for batch in batches:
        yield pa.RecordBatch.from_pydict({"rows": [batch.num_rows], "rejected": [0], "latencies": [[0.0]]})


def _made_up_records(spark: SparkSession) -> DataFrame:
    """A stream that looks like the topic's."""
    trade: Trade = {"s": "A", "p": 1.0, "t": 1_700_000_000_000, "v": 1.0, "c": ["1"]}
    value = encode([trade])
    rate = spark.readStream.format("rate-micro-batch").option("rowsPerBatch", 100).load()
    return rate.select(
        F.lit(bytearray(value)).alias("value"),
        F.lit("topic").alias("topic"),
        F.lit(0).alias("partition"),
        F.col("value").alias("offset"),
        F.current_timestamp().alias("timestamp"),
    )


if __name__ == "__main__":
    _rehearse(*sys.argv[1:])
