"""TimescaleDB as a Dagster resource."""

from collections.abc import Mapping
from typing import Any

import psycopg
from dagster import ConfigurableResource
from psycopg.rows import DictRow, dict_row

from stock_pipeline.settings import Role, load_settings
from stock_pipeline.sql_files import load_sql


class TimescaleResource(ConfigurableResource[None]):
    """The database of the market data, seen by the role that may only read where no other is named.

    Attributes:
        db_url: postgresql://host:port/database, without user and password.
    """

    db_url: str

    def connect(self, role: Role = "reader") -> psycopg.Connection[DictRow]:
        """A new connection; rows are dictionaries.

        Raises:
            psycopg.OperationalError: the database cannot be reached.
        """
        settings = load_settings().model_copy(update={"db_url": self.db_url})
        return psycopg.connect(settings.conninfo(role), row_factory=dict_row)

    def fetch(self, statement: str, values: Mapping[str, Any]) -> list[DictRow]:
        """All rows of the statement in `sql/<statement>`."""
        with self.connect() as connection:
            return connection.execute(load_sql(statement), values).fetchall()

    def is_community_edition(self) -> bool:
        """Whether TimescaleDB has columnstore, continuous aggregates and jobs; its Apache edition has none of them."""
        with self.connect() as connection:
            row = connection.execute("SELECT current_setting('timescaledb.license') AS license").fetchone()
        return row == {"license": "timescale"}

    def is_reachable(self) -> bool:
        try:
            with self.connect():
                return True
        except psycopg.OperationalError:
            return False
