"""Kafka as a Dagster resource."""

from collections.abc import Mapping
from datetime import datetime

from dagster import ConfigurableResource

from stock_pipeline.ingest import topics
from stock_pipeline.ingest.dead_letters import dead_letters_since
from stock_pipeline.settings import Settings, load_settings


class KafkaResource(ConfigurableResource[None]):
    """The broker and the topic of the trades.

    Attributes:
        bootstrap_servers: host:port, several separated by commas.
        topic: name of the topic.
    """

    bootstrap_servers: str
    topic: str

    def _settings(self) -> Settings:
        values = {"kafka_bootstrap_servers": self.bootstrap_servers, "kafka_topic": self.topic}
        return load_settings().model_copy(update=values)

    def offset_ranges(self) -> dict[int, tuple[int, int]]:
        """For each partition the first offset and the one after the last.

        Raises:
            UnknownTopic: there is no such topic.
            KafkaException: the broker cannot be reached.
        """
        return topics.offset_ranges(self._settings())

    def dead_letters_since(self, since: datetime, limit: int) -> tuple[int, list[Mapping[str, str]]]:
        """How many dead letters there are since then, and at most `limit` of them.

        Raises:
            UnknownTopic: there is no such topic.
            KafkaException: the broker cannot be reached.
        """
        return dead_letters_since(self._settings(), since, limit)
