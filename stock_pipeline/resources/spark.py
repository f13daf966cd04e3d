"""Spark as a Dagster resource."""

from dagster_pyspark import LazyPySparkResource

from stock_pipeline.services.service import Heartbeat


class SparkResource(LazyPySparkResource):
    """A session of the streams' own settings, started when `spark_session` is first used.

    The streams themselves run in processes of their own, which outlive a Dagster run.
    """

    @property
    def master(self) -> str:
        return str(self.spark_config["spark.master"])

    def ui_url(self, stream: Heartbeat) -> str | None:
        """Address of a running stream's own Spark UI."""
        return stream.links.get("spark_ui") or None
