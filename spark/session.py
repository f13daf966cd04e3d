"""The Spark session of the streams."""

import os
import sys
from pathlib import Path

from pyspark.conf import SparkConf
from pyspark.sql import SparkSession

from spark.class_archive import archive_path
from stock_pipeline.local.downloads import find_java, jars
from stock_pipeline.settings import Settings

SHUFFLE_PARTITIONS = 2
"""Fixed by the first checkpoint of a stateful stream."""

JVM = "-XX:+UseSerialGC -XX:MetaspaceSize=96m -XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=128m"
"""Its heap follows what is in use; that of G1 grows to its limit where the processors are busy with other processes.
With the default metaspace it would collect all of it once 21 MB of classes are loaded. The quick compiler only: what is
done with every trade is Python's, compiled by Numba, and the other compiler would take minutes of a processor. It comes
with room for 48 MB of code, which a stream fills within minutes, and compiles again what it then throws away."""

SMALL_HEAP = "-XX:InitialHeapSize=192m"
"""For a cluster's drivers and executors, whose memory containers bound. Left alone a heap begins with a 64th of the
machine's memory."""

LARGE_HEAP = "-XX:InitialHeapSize=448m -Xmn256m"
"""For a driver that works itself, batch after batch: room for what lives as long as a batch does. With 64 to 120 MB for
that, garbage collection took a twentieth of the time, twice a minute of the whole heap."""

MALLOC_ARENAS = "2"
"""glibc gives each of a JVM's threads memory of its own otherwise, and keeps what they return."""


def session_settings(settings: Settings, name: str) -> dict[str, str]:
    """Spark's settings for one application; spark-submit's own go before them."""
    class_path = f"{jars() / 'spark'}/*"
    checkpointing = "org.apache.spark.sql.execution.streaming.checkpointing"
    state = "org.apache.spark.sql.execution.streaming.state"
    values = {
        "spark.app.name": name,
        "spark.master": settings.spark_master,
        # Not spark.jars: the file system below is needed before those are there. Workers on other machines need the
        # project installed at the same place.
        "spark.driver.extraClassPath": class_path,
        "spark.executor.extraClassPath": class_path,
        # On a cluster the driver only plans; the executors work.
        "spark.driver.memory": "1g" if settings.is_spark_local else "512m",
        "spark.driver.extraJavaOptions": f"{JVM} {LARGE_HEAP if settings.is_spark_local else SMALL_HEAP}",
        "spark.executor.extraJavaOptions": f"{JVM} {SMALL_HEAP}",
        "spark.executorEnv.MALLOC_ARENA_MAX": MALLOC_ARENAS,
        "spark.local.dir": str(local_folder(settings, name)),
        "spark.sql.warehouse.dir": str(settings.home / "spark" / "warehouse"),
        "spark.ui.showConsoleProgress": "false",
        # A thousand of each by default: the plans and metrics of ten minutes of batches, 250 MB.
        "spark.sql.ui.retainedExecutions": "50",
        "spark.ui.retainedJobs": "50",
        "spark.ui.retainedStages": "50",
        # How the UI describes the plan of each batch: making the default, formatted one took an eighth of the time of
        # the thread that plans.
        "spark.sql.ui.explainMode": "simple",
        # Half an hour by default: until then garbage, and the files of shuffles that wait for its collection, pile up.
        "spark.cleaner.periodicGC.interval": "5min",
        "spark.sql.session.timeZone": "UTC",
        # 10 by default: a stream without trades would ask Kafka for some ten times a second instead of three.
        "spark.sql.streaming.pollingDelay": "200",
        # Each of the five things that a batch broadcasts, some kilobytes, would have its first 4 MB of memory.
        "spark.broadcast.blockSize": "128k",
        # A batch of a live stream is over before code for it has been written and compiled.
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
        "spark.sql.shuffle.partitions": str(SHUFFLE_PARTITIONS),
        "spark.python.daemon.module": "spark.python_daemon",
        # Spark measures a batch again with every row, at a cost that grows with the rows where conditions are null.
        "spark.sql.execution.arrow.maxRecordsPerBatch": "2000",
        "spark.sql.streaming.stateStore.providerClass": f"{state}.RocksDBStateStoreProvider",
        "spark.sql.streaming.stateStore.rocksdb.changelogCheckpointing.enabled": "true",
        "spark.sql.streaming.stateStore.rocksdb.trackTotalNumberOfRows": "false",
        # Else each store's write buffers grow for a day, the length of the watermark.
        "spark.sql.streaming.stateStore.rocksdb.boundedMemoryUsage": "true",
        "spark.sql.streaming.stateStore.rocksdb.maxMemoryUsageMB": "64",
        # Hadoop's file system writes a checksum of every file already.
        "spark.sql.streaming.checkpoint.fileChecksum.enabled": "false",
        # In update mode a batch without data would write nothing.
        "spark.sql.streaming.noDataMicroBatches.enabled": "false",
        # Hadoop's own file system forks chmod for every checkpoint file, 70 ms each.
        "spark.hadoop.fs.file.impl": "com.globalmentor.apache.hadoop.fs.BareLocalFileSystem",
        "spark.sql.streaming.checkpointFileManagerClass": f"{checkpointing}.FileSystemBasedCheckpointFileManager",
    }
    if settings.is_spark_local:
        values |= {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
    return values


def local_folder(settings: Settings, name: str) -> Path:
    """Where an application keeps what it needs only while it runs."""
    return settings.home / "spark" / name


def prepare_environment(settings: Settings) -> None:
    """Say in this process's environment which Python, Java, address and number of arenas Spark has to use.

    Raises:
        InstallError: there is no Java 17 or newer.
    """
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("MALLOC_ARENA_MAX", MALLOC_ARENAS)
    os.environ["JAVA_HOME"] = str(find_java().resolve().parent.parent)
    if settings.is_spark_local:
        os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"


def create_session(settings: Settings, name: str, jvm_options: str | None = None) -> SparkSession:
    """Start Spark, or take the session that spark-submit began.

    Args:
        jvm_options: further options of every JVM; None: the class archive, where there is one.

    Raises:
        InstallError: there is no Java 17 or newer.
    """
    prepare_environment(settings)
    if jvm_options is None:
        jvm_options = f'-XX:SharedArchiveFile="{archive_path()}"' if archive_path().exists() else ""
    values = session_settings(settings, name)
    # What a JVM that is killed leaves in the system's own, 15 MB of native libraries, nobody would delete.
    temporary = local_folder(settings, name)
    temporary.mkdir(parents=True, exist_ok=True)
    values["spark.driver.extraJavaOptions"] += f' -Djava.io.tmpdir="{temporary}" {jvm_options}'
    values["spark.executor.extraJavaOptions"] += f" {jvm_options}"
    conf = SparkConf()
    for key, value in values.items():
        conf.setIfMissing(key, value)
    session = SparkSession.builder.config(conf=conf).getOrCreate()
    _drop_hadoop_defaults(session)
    return session


def _drop_hadoop_defaults(session: SparkSession) -> None:
    """Leave of Hadoop's configuration what was set: its own code knows the defaults, and so does the file system here.

    A batch sends it to each access to the state, with every one of a thousand values compressed by itself.
    """
    context = session.sparkContext
    # Loads what would bring them back.
    session._jsparkSession.sessionState().newHadoopConf()
    configuration = context._jsc.hadoopConfiguration()
    configuration.clear()
    for key, value in context.getConf().getAll():
        if key.startswith("spark.hadoop."):
            configuration.set(key.removeprefix("spark.hadoop."), value)
