"""The resources, by the names under which ops and checks ask for them, and the executor."""

from dagster import Definitions, definitions, in_process_executor

from spark.session import session_settings
from stock_pipeline.resources.kafka import KafkaResource
from stock_pipeline.resources.spark import SparkResource
from stock_pipeline.resources.timescale import TimescaleResource
from stock_pipeline.settings import load_settings


@definitions
def resources() -> Definitions:
    settings = load_settings()
    return Definitions(
        # A process for each step would take longer to start than its SQL takes.
        executor=in_process_executor,
        resources={
            "kafka": KafkaResource(bootstrap_servers=settings.kafka_bootstrap_servers, topic=settings.kafka_topic),
            "spark": SparkResource(spark_config=session_settings(settings, "dagster")),
            "timescale": TimescaleResource(db_url=settings.db_url),
        },
    )
