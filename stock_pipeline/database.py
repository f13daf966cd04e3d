"""Setting up the database, and waiting for one that is away."""

import logging
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql
from tenacity import Retrying

from stock_pipeline.errors import SettingsError
from stock_pipeline.retry import until_back
from stock_pipeline.settings import ROLE_NAMES, Role, Settings
from stock_pipeline.sql_files import fetch_value, load_sql, schema_files

log = logging.getLogger(__name__)

DAGSTER_DATABASE = "dagster"

RIGHTS = "schema/900_rights.sql"

ANY_NUMBER_OF_ROWS = "-c timescaledb.max_tuples_decompressed_per_dml_transaction=0"
"""Option of a connection that may turn any number of rows of the columnstore back into rows in a transaction:
TimescaleDB's limit of 100,000 is for what a person does by mistake. The Apache edition has no such rows.
"""

SESSIONS_AHEAD = timedelta(days=300)
"""Market sessions that end sooner than this are asked for anew; exchange_calendars knows a year."""


def until_available(settings: Settings, patience: float | None = None, stop: threading.Event | None = None) -> Retrying:
    """Retries what meets a database that cannot be reached; see `until_back`."""
    server = f"database {settings.db_url} (db_url)"
    return until_back(server, _is_away, patience, stop)


def _is_away(error: BaseException) -> bool:
    """Whether another attempt, later, can succeed; it cannot where a password is missing."""
    missing_password = isinstance(error, psycopg.Error) and error.pgconn is not None and error.pgconn.needs_password
    return isinstance(error, psycopg.OperationalError) and not missing_password


def init_db(settings: Settings) -> None:
    """Bring roles, databases, tables and rights to the state of sql/. Changes nothing where they are there.

    Raises:
        SettingsError: the server has no TimescaleDB, or the owner may not do this.
    """
    for attempt in until_available(settings, patience=60):
        with attempt:
            _create_databases(settings)
    with psycopg.connect(settings.conninfo("owner")) as connection:
        _one_at_a_time(connection)
        try:
            connection.execute("SET client_min_messages = warning")
            connection.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
            for role in ROLE_NAMES:
                _create_role(connection, settings, role)
            _say_tick_retention(connection, settings)
            for name in schema_files():
                connection.execute(load_sql(name))
            limit = {"database_bytes": settings.db_size_alert_gb * 1e9}
            connection.execute(load_sql("queries/upsert_alert_limit.sql"), limit)
            _refresh_market_sessions(connection)
        except psycopg.errors.UndefinedFile as error:
            raise SettingsError(f"db_url: {settings.db_url} has no TimescaleDB: install the extension there") from error
        except psycopg.errors.InsufficientPrivilege as error:
            raise SettingsError(f"db_user: {settings.db_user} may not set up the database: {error}") from error


def apply_file(connection: psycopg.Connection[Any], name: str) -> None:
    """Apply one file of tables or views again, and give the roles their rights on what it creates."""
    _one_at_a_time(connection)
    for file in (name, RIGHTS):
        connection.execute(load_sql(file))


def _one_at_a_time(connection: psycopg.Connection[Any]) -> None:
    # Two at once would both create what is missing.
    connection.execute("SELECT pg_advisory_xact_lock(hashtext('stock_pipeline.init_db'))")


def _say_tick_retention(connection: psycopg.Connection, settings: Settings) -> None:
    """For schema/016_tick_retention_job.sql."""
    days = str(settings.tick_retention_days)
    connection.execute("SELECT set_config('stock_pipeline.tick_retention_days', %s, TRUE)", [days])


def _refresh_market_sessions(connection: psycopg.Connection) -> None:
    end = fetch_value(connection, "queries/market_sessions_end.sql")
    if end is None or end - datetime.now(UTC) < SESSIONS_AHEAD:
        # A large import, which most calls do without.
        from stock_pipeline.market.sessions import fill_market_sessions

        fill_market_sessions(connection)


def _create_databases(settings: Settings) -> None:
    with psycopg.connect(settings.conninfo("owner", database="postgres"), autocommit=True) as connection:
        for name in (settings.db_name, DAGSTER_DATABASE):
            if connection.execute("SELECT FROM pg_database WHERE datname = %s", [name]).fetchone() is None:
                try:
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
                except psycopg.errors.DuplicateDatabase:
                    log.info("database %s was created by another process", name)


def _create_role(connection: psycopg.Connection, settings: Settings, role: Role) -> None:
    user, password = settings.role(role)
    name = sql.Identifier(ROLE_NAMES[role])
    if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [ROLE_NAMES[role]]).fetchone() is None:
        connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(name))
    if user == ROLE_NAMES[role] and password:
        connection.execute(sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(name, sql.Literal(password)))
