"""Dagster's storage in PostgreSQL, with connections that are kept: Dagster's own connects anew for every event."""

from collections.abc import Mapping
from functools import cache
from typing import Any, Self

from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.utils import pg_url_from_config
from sqlalchemy import Engine, create_engine

KEPT, MOST_AT_ONCE = 2, 30
"""Connections of one process."""


class PooledPostgresStorage(DagsterPostgresStorage):
    """As dagster-postgres, and configured as that; a connection that has died is replaced before it is used."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        storages: tuple[Any, ...] = (self.run_storage, self.event_log_storage, self.schedule_storage)
        for storage in storages:
            storage._engine = _engine(self.postgres_url)

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        return cls(pg_url_from_config(config_value), inst_data=inst_data)


@cache
def _engine(url: str) -> Engine:
    """One for the whole process: the code server makes a storage for every tick of a sensor."""
    return create_engine(
        url, isolation_level="AUTOCOMMIT", pool_size=KEPT, max_overflow=MOST_AT_ONCE - KEPT, pool_pre_ping=True
    )
