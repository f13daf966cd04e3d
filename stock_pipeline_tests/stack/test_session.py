"""What every batch of a stream takes with it."""

from pyspark.sql import SparkSession


def test_batches_carry_no_defaults_of_hadoop(spark: SparkSession):
    spark.range(1).count()
    configuration = spark._jsparkSession.sessionState().newHadoopConf()
    assert configuration.get("yarn.resourcemanager.address") is None
    assert configuration.get("fs.file.impl") == "com.globalmentor.apache.hadoop.fs.BareLocalFileSystem"
