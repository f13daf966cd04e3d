"""The rollups in Dagster: materialised, backfilled, and kept fresh by their schedule."""

import base64
import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from dagster import (
    AssetKey,
    AssetMaterialization,
    DagsterInstance,
    DagsterRunStatus,
    JobDefinition,
    RunRequest,
    SkipReason,
    build_schedule_context,
    materialize,
)
from dagster._core.errors import DagsterUnknownPartitionError
from PIL import Image

from stock_pipeline.definitions import defs
from stock_pipeline.defs.analytics.rollups import refresh_rollups
from stock_pipeline.defs.analytics.views import (
    volatility_1m,
    volatility_30,
    volatility_60,
    volatility_1440,
    vwap_bands,
)
from stock_pipeline.defs.reference import trade_condition
from stock_pipeline.resources.timescale import TimescaleResource
from stock_pipeline.settings import Settings, load_settings
from stock_pipeline_tests.conftest import Stack
from stock_pipeline_tests.expected_rollups import WIDTHS

pytestmark = pytest.mark.stack

SYMBOL = "BINANCE:BTCUSDT"
"""One that is subscribed, so that the chart shows it."""

DAY = datetime(2026, 2, 3, tzinfo=UTC)

TABLES = [*WIDTHS, "ohlcv_1d"]


@pytest.fixture
def connection(product: Settings) -> Iterator[psycopg.Connection]:
    """A day with a bar each minute."""
    with psycopg.connect(product.conninfo("owner"), autocommit=True) as connection:
        connection.execute(
            "INSERT INTO instrument VALUES (%s, 'crypto', '24/7', 525600) ON CONFLICT DO NOTHING", [SYMBOL]
        )
        connection.execute(
            "INSERT INTO ohlcv_data (timestamp, symbol, open, high, low, close, volume, trades, ticks, vwap, is_final) "
            "SELECT minute, %s, 10, 12, 9, 11, 1, 1, 1, 10, TRUE "
            "FROM generate_series(%s::timestamptz, %s, '1 minute') AS minute",
            [SYMBOL, DAY, DAY + timedelta(minutes=1439)],
        )
        yield connection
        for table in ("ohlcv_data", *TABLES):
            connection.execute(
                f"DELETE FROM {table} WHERE timestamp >= %s AND timestamp < %s", [DAY, DAY + timedelta(2)]
            )
        connection.execute("DELETE FROM stale_bar")


@pytest.fixture
def instance(product: Settings) -> Iterator[DagsterInstance]:
    with DagsterInstance.local_temp() as temporary:
        yield temporary


def job() -> JobDefinition:
    return defs().get_repository_def().get_job("rollups")


def count(connection: psycopg.Connection, table: str) -> int:
    [(rows,)] = connection.execute(
        f"SELECT count(*) FROM {table} WHERE symbol = %s AND timestamp >= %s AND timestamp < %s",
        [SYMBOL, DAY, DAY + timedelta(1)],
    )
    return rows


def newest(instance: DagsterInstance, table: str) -> dict[str, Any]:
    event = instance.get_latest_materialization_event(AssetKey(table))
    return {name: entry.value for name, entry in event.asset_materialization.metadata.items()}


def test_a_day_is_materialised_with_its_chart(connection: psycopg.Connection, instance: DagsterInstance):
    done = job().execute_in_process(instance=instance, partition_key="2026-02-03")
    assert done.success
    assert not done.get_asset_check_evaluations(), "they are scheduled by themselves, not every minute"
    assert {table: count(connection, table) for table in TABLES} == {
        "ohlcv_5m": 288,
        "ohlcv_15m": 96,
        "ohlcv_1h": 24,
        "ohlcv_1d": 1,
    }
    for table in TABLES:
        shown = newest(instance, table)
        assert shown["dagster/partition_row_count"] == count(connection, table)
        assert shown["bars_changed"] >= count(connection, table)
        assert shown["preview"].records[-1].data["timestamp"].startswith("2026-02-03 ")
        assert {"timestamp", "symbol", "open", "vwap"} <= set(shown["preview"].records[-1].data)
        picture = base64.b64decode(shown["chart"].split("base64,")[1].removesuffix(")"))
        image = Image.open(io.BytesIO(picture))
        assert image.width > 400 and len(image.getcolors()) > 3


def test_days_without_bars_are_materialised_in_one_run_and_say_so(instance: DagsterInstance):
    tags = {"dagster/asset_partition_range_start": "2026-01-01", "dagster/asset_partition_range_end": "2026-01-05"}
    done = job().execute_in_process(instance=instance, tags=tags)
    assert done.success
    assert newest(instance, "ohlcv_1d")["dagster/partition_row_count"] == 0
    days = instance.get_materialized_partitions(AssetKey("ohlcv_5m"))
    assert days == {f"2026-01-0{day}" for day in range(1, 6)}
    messages = [log.user_message for log in instance.all_logs(done.run_id)]
    assert "ohlcv_5m: 5 of 5 days have no bar, since ohlcv_data has none in them that belongs to one" in messages


def test_a_backfill_in_one_run_says_of_each_day_what_it_made(connection: psycopg.Connection, instance: DagsterInstance):
    tags = {"dagster/asset_partition_range_start": "2026-02-02", "dagster/asset_partition_range_end": "2026-02-04"}
    assert job().execute_in_process(instance=instance, tags=tags).success
    records = instance.fetch_materializations(AssetKey("ohlcv_15m"), limit=10).records
    rows = {r.partition_key: r.asset_materialization.metadata["dagster/partition_row_count"].value for r in records}
    assert rows == {"2026-02-02": 0, "2026-02-03": 96, "2026-02-04": 0}
    [shown] = [r for r in records if "preview" in r.asset_materialization.metadata]
    assert shown.partition_key == "2026-02-04"
    preview = shown.asset_materialization.metadata["preview"].value.records
    assert preview[-1].data["timestamp"] == "2026-02-03 23:45:00+00:00"


def test_a_day_in_the_future_is_refused(instance: DagsterInstance):
    future = (datetime.now(UTC) + timedelta(days=2)).date().isoformat()
    with pytest.raises(DagsterUnknownPartitionError, match=future):
        job().execute_in_process(instance=instance, partition_key=future)


def test_a_refresh_reports_another_day_that_it_changes(connection: psycopg.Connection, instance: DagsterInstance):
    job().execute_in_process(instance=instance, partition_key="2026-02-03")
    connection.execute("UPDATE ohlcv_data SET high = 13 WHERE symbol = %s AND timestamp = %s", [SYMBOL, DAY])
    config = {"ops": {table: {"config": {"only_changed": True, "with_chart": False}} for table in TABLES}}
    done = job().execute_in_process(instance=instance, partition_key="2026-02-05", run_config=config)
    assert "chart" not in newest(instance, "ohlcv_5m")
    for table in TABLES:
        [(high,)] = connection.execute(f"SELECT high FROM {table} WHERE symbol = %s AND timestamp = %s", [SYMBOL, DAY])
        assert high == 13
        events = instance.fetch_materializations(AssetKey(table), limit=10).records
        reports = [r for r in events if r.partition_key == "2026-02-03" and r.run_id != done.run_id]
        assert reports[0].asset_materialization.metadata["bars_changed"].value == 1
        assert not reports[0].run_id, "a report of no run outlives every run"


def tick(instance: DagsterInstance, time: datetime) -> RunRequest | SkipReason:
    resources = {"timescale": TimescaleResource(db_url=load_settings().db_url)}
    with build_schedule_context(instance, scheduled_execution_time=time, resources=resources) as context:
        return refresh_rollups(context)


@pytest.fixture
def quiet(connection: psycopg.Connection) -> Iterator[None]:
    """Nothing has changed: every bar is final and followed by the coarser ones."""
    kept = {
        table: connection.execute(
            f"UPDATE {table} SET is_final = TRUE WHERE NOT is_final RETURNING timestamp, symbol"
        ).fetchall()
        for table in ("ohlcv_data", *TABLES)
    }
    connection.execute("DELETE FROM stale_bar")
    yield
    with connection.cursor() as cursor:
        for table, keys in kept.items():
            cursor.executemany(f"UPDATE {table} SET is_final = FALSE WHERE timestamp = %s AND symbol = %s", keys)


def change(connection: psycopg.Connection, *tables: str) -> None:
    connection.execute(
        "INSERT INTO stale_bar (rollup, timestamp, symbol) SELECT unnest(%s::text[]), %s, %s",
        [list(tables), DAY, SYMBOL],
    )


def make_all(instance: DagsterInstance, day: datetime) -> None:
    for table in TABLES:
        instance.report_runless_asset_event(AssetMaterialization(table, partition=f"{day:%Y-%m-%d}"))


def test_the_schedule_rests_where_nothing_has_changed_until_a_rollup_would_be_late(
    quiet: None, connection: psycopg.Connection, instance: DagsterInstance
):
    now = datetime.now(UTC)
    minute = now.replace(second=0, microsecond=0)
    make_all(instance, now)
    for later in range(1, 41):
        time = minute + timedelta(minutes=later)
        if f"{time:%Y-%m-%d}" != f"{now:%Y-%m-%d}":
            break
        # Each warns when it is older than twice its minutes and 5.
        due = [table for table, every in zip(TABLES, (1, 5, 15, 15), strict=True) if later >= 2 * every + 3]
        answer = tick(instance, time)
        assert ([key.to_user_string() for key in answer.asset_selection] if due else answer.skip_message) == (
            due or "all rollups were made since they were due, or nothing has changed"
        )
    change(connection, "ohlcv_5m")
    later = minute + timedelta(minutes=1)
    assert [key.to_user_string() for key in tick(instance, later).asset_selection][:1] == ["ohlcv_5m"]


def test_the_schedule_refreshes_what_was_not_made_since_it_was_due(
    connection: psycopg.Connection, instance: DagsterInstance
):
    change(connection, *TABLES)
    now = datetime.now(UTC)
    minute = now.replace(second=0, microsecond=0)
    assert [key.to_user_string() for key in tick(instance, minute).asset_selection] == TABLES
    make_all(instance, now)
    assert isinstance(tick(instance, minute), SkipReason)
    for later in range(1, 61):
        time = minute + timedelta(minutes=later)
        passed = [(minute + timedelta(minutes=number)).minute for number in range(1, later + 1)]
        if f"{time:%Y-%m-%d}" != f"{now:%Y-%m-%d}":
            # Nothing of the new day was made yet.
            passed = [0]
        due = [
            table for table, every in zip(TABLES, (1, 5, 15, 15), strict=True) if any(m % every == 0 for m in passed)
        ]
        request = tick(instance, time)
        assert [key.to_user_string() for key in request.asset_selection] == due
        assert request.asset_check_keys == []
        assert request.partition_key == f"{time:%Y-%m-%d}"
        config = {"only_changed": True, "with_chart": 0 in passed}
        assert request.run_config["ops"] == {table: {"config": config} for table in due}


def test_the_schedule_waits_for_the_run_before(instance: DagsterInstance):
    run = instance.create_run_for_job(job(), status=DagsterRunStatus.STARTED)
    assert run.run_id[:8] in tick(instance, datetime.now(UTC)).skip_message


def test_the_views_and_the_file_of_conditions_are_applied(shared_stack: Stack, instance: DagsterInstance):
    views = [volatility_1m, volatility_30, volatility_60, volatility_1440, vwap_bands]
    with shared_stack.connect() as owner:
        owner.execute("DROP VIEW volatility_30")
    done = materialize([*views, trade_condition], instance=instance, resources=defs().resources)
    assert done.success
    with shared_stack.connect("reader") as reader:
        for name in (view.key.to_user_string() for view in views):
            assert reader.execute(f"SELECT count(*) FROM {name} WHERE symbol = 'NEVER:SEEN'").fetchone() == (0,)
        for function in ("volatility('NEVER:SEEN', now(), now(), 30)", "vwap_bands('NEVER:SEEN', now(), now())"):
            assert reader.execute(f"SELECT count(*) FROM {function}").fetchone() == (0,)
        with pytest.raises(psycopg.errors.RaiseException, match="3 bars or more, not 2"):
            reader.execute("SELECT * FROM volatility('NEVER:SEEN', now(), now(), 2)")


def test_the_columns_that_dagster_shows_are_those_of_the_database(shared_stack: Stack):
    for spec in defs().resolve_all_asset_specs():
        if "dagster/table_name" not in spec.metadata:
            continue
        _, schema, table = spec.metadata["dagster/table_name"].split(".")
        shown = [(c.name, c.type) for c in spec.metadata["dagster/column_schema"].columns]
        rows = shared_stack.query(
            "SELECT attname::text, format_type(atttypid, NULL) FROM pg_attribute "
            "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            f"{schema}.{table}",
        )
        names = {"timestamp with time zone": "timestamptz", "integer": "int"}
        assert shown == [(name, names.get(kind, kind)) for name, kind in rows], table
