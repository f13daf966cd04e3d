"""Spark as a Dagster resource."""

from dagster_pyspark import LazyPySparkResource
from pyspark.sql import SparkSession

from spark.session import prepare_environment
from stock_pipeline.services.service import Heartbeat
from stock_pipeline.settings import load_settings


class SparkResource(LazyPySparkResource):
    """A session of the streams' own settings, started when `spark_session` is first used.

    The streams themselves run in processes of their own, which outlive a Dagster run.
    """

    def start(self) -> SparkSession:
        """The session.

        Raises:
            InstallError: there is no Java 17 or newer.
        """
        prepare_environment(load_settings())
        session: SparkSession = self.spark_session
        return session

    @property
    def master(self) -> str:
        return str(self.spark_config["spark.master"])

    def ui_url(self, stream: Heartbeat) -> str | None:
        """Address of a running stream's own Spark UI."""
        return stream.links.get("spark_ui") or None
