"""Every asset check passes over sound data, and finds what is broken on purpose."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetKey,
    DagsterInstance,
    Definitions,
    asset,
    asset_check,
    build_sensor_context,
    define_asset_job,
)
from psycopg.rows import DictRow, dict_row

from stock_pipeline.bars.rollups import ROLLUPS, refresh
from stock_pipeline.definitions import defs
from stock_pipeline.defs.quality.batches import Batch, result
from stock_pipeline.defs.quality.checks import (
    ARRIVALS,
    BARS,
    CONDITIONS,
    FEED,
    FRESH_BARS,
    MATCHES,
    SUMS,
    TICKS,
    VIEWS,
    tick_stream_keeps_up,
)
from stock_pipeline.defs.quality.evaluations import tell_of_checks
from stock_pipeline.resources.timescale import TimescaleResource
from stock_pipeline.settings import Settings
from stock_pipeline_tests.conftest import Stack
from stock_pipeline_tests.messages import encode, trade

pytestmark = pytest.mark.stack

SYMBOL = "BINANCE:BTCUSDT"

TABLES = ["ohlcv_data", *(rollup.table for rollup in ROLLUPS)]


@pytest.fixture
def database(product: Settings) -> Iterator[psycopg.Connection[DictRow]]:
    """A day and a half of sound ticks and bars of one symbol to now, with rollups; undone at the end."""
    with (
        psycopg.connect(product.conninfo("owner"), row_factory=dict_row) as connection,
        connection.transaction(force_rollback=True),
    ):
        for table in (
            "tick_data",
            *TABLES,
            "stale_bar",
            "stream_offset",
            "suspected_duplicate",
            "feed_gap",
            "instrument",
            "late_minute",
        ):
            connection.execute(f"DELETE FROM {table}")
        connection.execute("INSERT INTO instrument VALUES (%s, 'crypto', '24/7', 525600)", [SYMBOL])
        connection.execute(
            "INSERT INTO stream_offset SELECT s, 'topic', 0, 0, now(), now() "
            "FROM unnest(ARRAY['tick-stream', 'ohlcv-stream']) AS s"
        )
        connection.execute(
            "INSERT INTO tick_data "
            "SELECT %s, 10 + random(), minute, 1, extract(EPOCH FROM minute)::bigint, NULL, minute "
            "FROM generate_series(date_trunc('minute', now()) - INTERVAL '36 hours', now(), '1 minute') AS minute",
            [SYMBOL],
        )
        connection.execute(
            "INSERT INTO ohlcv_data (timestamp, symbol, open, high, low, close, volume, trades, ticks, vwap, is_final) "
            "SELECT event_time, symbol, price, price, price, price, volume, 1, 1, price, TRUE FROM tick_data"
        )
        for rollup in ROLLUPS:
            refresh(connection, rollup)
        yield connection


def failed(database: psycopg.Connection[DictRow], batch: Batch) -> set[str]:
    known = {rule.name for rule in batch.rules}
    names = {row["check"] for row in batch.violations(database)[0]}
    assert names <= known
    return names


def everything() -> list[Batch]:
    return [ARRIVALS, TICKS, CONDITIONS, FEED, FRESH_BARS, MATCHES, *BARS, *SUMS, *VIEWS]


def test_sound_data_passes_every_check(database: psycopg.Connection[DictRow]):
    subscribed = {"symbols": [SYMBOL], "calendars": ["24/7"]}
    for batch in everything():
        if batch is ARRIVALS:
            batch = replace(batch, values=lambda: subscribed)
        assert batch.violations(database)[0] == [], batch


def test_the_first_minute_is_looked_at_as_a_whole(database: psycopg.Connection[DictRow]):
    """Of which an hour ago, to the second, is in the middle."""
    database.execute("UPDATE tick_data SET event_time = event_time + INTERVAL '59.9 seconds'")
    assert MATCHES.violations(database)[0] == []


@pytest.mark.parametrize("batch", everything(), ids=lambda batch: f"{batch.statement}-{batch.asset}")
def test_the_query_that_is_shown_can_be_run(database: psycopg.Connection[DictRow], batch: Batch):
    assert "%(" not in (query := batch.violations(database)[1])
    database.execute(query)


def test_all_that_break_a_rule_are_counted_and_some_shown(database: psycopg.Connection[DictRow]):
    database.execute("UPDATE ohlcv_data SET high = close - 1")
    rows = [row for row in BARS[0].violations(database)[0] if row["check"] == "high_is_highest"]
    assert len(rows) == 10
    outcome = result("ohlcv_data", BARS[0].rules[0], rows, "SELECT 1", rows[0]["found"])
    assert not outcome.passed and outcome.metadata["rows"].value == rows[0]["found"] > 1_000
    assert outcome.description.startswith(f"{rows[0]['found']:,} found. ")
    assert set(outcome.metadata["sample"].records[0].data) == {
        *("timestamp", "symbol"),
        *("open", "high", "low"),
        "close",
        "copies",
    }


BROKEN_BARS = {
    "high_is_highest": "high = close - 1",
    "low_is_lowest": "low = high + 1",
    "prices_are_positive": "open = 0, low = 0",
    "symbols_are_there": "symbol = ''",
}


@pytest.mark.parametrize("batch", BARS, ids=lambda batch: batch.asset)
@pytest.mark.parametrize(("check", "change"), BROKEN_BARS.items())
def test_a_broken_bar_is_found(database: psycopg.Connection[DictRow], batch: Batch, check: str, change: str):
    database.execute(f"UPDATE {batch.asset} SET {change} WHERE timestamp = (SELECT max(timestamp) FROM {batch.asset})")
    assert check in failed(database, batch)


def test_a_price_that_is_no_number_is_found(database: psycopg.Connection[DictRow]):
    database.execute("UPDATE ohlcv_data SET close = 'NaN' WHERE timestamp = (SELECT max(timestamp) FROM ohlcv_data)")
    assert "prices_are_positive" in failed(database, BARS[0])


def test_a_key_that_is_there_twice_is_found(database: psycopg.Connection[DictRow]):
    # Without its constraint, which no writer can get round.
    database.execute("ALTER TABLE ohlcv_data DROP CONSTRAINT ohlcv_data_timestamp_symbol_key")
    database.execute("INSERT INTO ohlcv_data SELECT * FROM ohlcv_data ORDER BY timestamp DESC LIMIT 1")
    assert failed(database, BARS[0]) == {"keys_are_unique"}
    database.execute("ALTER TABLE tick_data DROP CONSTRAINT tick_data_pkey")
    database.execute("INSERT INTO tick_data SELECT * FROM tick_data ORDER BY event_time DESC LIMIT 1")
    assert "keys_are_unique" in failed(database, TICKS)


@pytest.mark.parametrize("batch", SUMS, ids=lambda batch: batch.asset)
@pytest.mark.parametrize(
    "change", ["UPDATE {} SET volume = volume * (1 + 2e-9)", "UPDATE {} SET ticks = 0", "DELETE FROM {}"]
)
def test_a_rollup_that_is_not_the_sum_of_its_bars_is_found(
    database: psycopg.Connection[DictRow], batch: Batch, change: str
):
    table, source = batch.tables["rollup"], batch.tables["source"]
    database.execute(f"{change.format(table)} WHERE timestamp = (SELECT min(timestamp) FROM {table})")
    database.execute("DELETE FROM stale_bar")
    assert failed(database, batch) == {"sums_are_those_of_finer_bars"}
    # What a refresh still has to do is no error, for a while; what it has to do elsewhere is no excuse.
    stale = f"INSERT INTO stale_bar SELECT %s, {{}}(timestamp), symbol FROM {source}"
    database.execute(stale.format("max") + " GROUP BY symbol", [table])
    assert failed(database, batch) == {"sums_are_those_of_finer_bars"}
    database.execute(stale.format("min") + " GROUP BY symbol", [table])
    assert failed(database, batch) == set()
    database.execute("UPDATE stale_bar SET noted_at = now() - INTERVAL '21 minutes'")
    assert failed(database, batch) == {"sums_are_those_of_finer_bars"}
    database.execute(f"UPDATE {source} SET is_final = FALSE WHERE timestamp = (SELECT min(timestamp) FROM {source})")
    database.execute("DELETE FROM stale_bar")
    assert failed(database, batch) == set()


def test_ticks_that_are_wrong_are_found(database: psycopg.Connection[DictRow]):
    newest = "WHERE event_time = (SELECT max(event_time) FROM tick_data)"
    database.execute(f"UPDATE tick_data SET price = 0 {newest}")
    database.execute(f"UPDATE tick_data SET symbol = '' {newest}")
    assert {"prices_are_positive", "symbols_are_there"} <= failed(database, TICKS)


@pytest.mark.parametrize(("seconds", "agree"), [(-2, False), (0, True), (5, True), (15, False)])
def test_a_clock_that_is_wrong_is_found(database: psycopg.Connection[DictRow], seconds: int, agree: bool):
    database.execute("UPDATE tick_data SET received_at = event_time + %s * INTERVAL '1 second'", [seconds])
    assert ("clocks_agree" not in failed(database, ARRIVALS)) is agree


def test_a_subscribed_symbol_that_is_silent_while_its_market_is_open_is_found(database: psycopg.Connection[DictRow]):
    now = datetime.now(UTC)
    database.execute("DELETE FROM market_session")
    tomorrow = now.date() + timedelta(days=1)
    sessions = [
        ("OPEN", now.date(), now - timedelta(hours=2), now + timedelta(hours=1)),
        ("SHUT", now.date(), now, now + timedelta(hours=1)),
        # One that never shuts, soon after midnight.
        ("ALWAYS", now.date(), now - timedelta(hours=23), now - timedelta(minutes=20)),
        ("ALWAYS", tomorrow, now - timedelta(minutes=20), now + timedelta(hours=23)),
    ]
    for session in sessions:
        database.execute("INSERT INTO market_session VALUES (%s, %s, %s, %s)", session)
    database.execute(
        "INSERT INTO tick_data VALUES ('TRADES', 1, %s, 1, 1, NULL, %s)", [now - timedelta(minutes=59)] * 2
    )
    values = {"symbols": ["TRADES", "SILENT", "SHUT", "DEAD"], "calendars": ["OPEN", "OPEN", "SHUT", "ALWAYS"]}
    batch = replace(ARRIVALS, values=lambda: values)
    rows = [row for row in batch.violations(database)[0] if row["check"] == "subscribed_symbols_trade"]
    assert {row["symbol"] for row in rows} == {"SILENT", "DEAD"}


def test_an_outage_of_the_feed_is_found_while_it_lasts_and_for_two_hours(database: psycopg.Connection[DictRow]):
    now = datetime.now(UTC)
    database.execute(
        "INSERT INTO feed_gap (started, ended, cause) VALUES (%s, %s, 'disconnected')",
        [now - timedelta(hours=5), now - timedelta(hours=3)],
    )
    assert failed(database, FEED) == set()
    database.execute("UPDATE feed_gap SET ended = NULL")
    assert failed(database, FEED) == {"feed_was_there"}


def test_bars_that_come_late_are_found(database: psycopg.Connection[DictRow]):
    database.execute("DELETE FROM ohlcv_data WHERE timestamp > now() - INTERVAL '6 minutes'")
    assert failed(database, FRESH_BARS) == {"bars_are_fresh"}
    # Odd lots set no price, and so make no bar.
    database.execute("UPDATE tick_data SET conditions = ARRAY['12'] WHERE event_time > now() - INTERVAL '6 minutes'")
    assert failed(database, FRESH_BARS) == set()


def test_a_bar_that_its_ticks_do_not_make_and_a_condition_that_nobody_knows_are_found(
    database: psycopg.Connection[DictRow],
):
    newest = "(SELECT max(timestamp) FROM ohlcv_data WHERE timestamp < now() - INTERVAL '5 minutes')"
    database.execute(f"UPDATE ohlcv_data SET close = close + 1, high = high + 1 WHERE timestamp = {newest}")
    database.execute(f"UPDATE tick_data SET conditions = ARRAY['99'] WHERE event_time = {newest}")
    assert failed(database, MATCHES) == {"bars_match_ticks"}
    assert failed(database, CONDITIONS) == {"conditions_are_known"}


BROKEN_VIEWS = {
    "measures_are_not_negative": "-1 - v.parkinson AS parkinson, v.jump_share",
    "jump_share_is_a_share": "v.parkinson, v.jump_share + 1.5 AS jump_share",
    "full_windows_have_values": "NULL::double precision AS parkinson, v.jump_share",
}

WINDOWS = [batch for batch in VIEWS if batch.statement == "volatility.sql"]

RANGES, BANDS = (next(batch for batch in VIEWS if batch.asset == asset) for asset in ("volatility_1m", "vwap_bands"))


@pytest.mark.parametrize(("check", "columns"), BROKEN_VIEWS.items())
def test_a_broken_formula_is_found(database: psycopg.Connection[DictRow], check: str, columns: str):
    database.execute("ALTER FUNCTION volatility RENAME TO sound_volatility")
    database.execute(
        "CREATE FUNCTION volatility(s text, b timestamptz, e timestamptz, n integer) RETURNS SETOF volatility_30 "
        "LANGUAGE sql AS $$ SELECT v.timestamp, v.symbol, v.from_timestamp, v.close_to_close, x.parkinson, "
        "v.garman_klass, v.rogers_satchell, v.yang_zhang, v.realised, v.bipower, x.jump_share, v.atr "
        f"FROM sound_volatility(s, b, e, n) AS v CROSS JOIN LATERAL (SELECT {columns}) AS x $$"
    )
    assert failed(database, WINDOWS[0]) == {check}


def test_a_measure_that_is_no_number_is_found(database: psycopg.Connection[DictRow]):
    test_a_broken_formula_is_found(
        database, "measures_are_not_negative", "'NaN'::double precision AS parkinson, v.jump_share"
    )


def test_a_range_of_a_minute_that_is_negative_or_lacks_is_found(database: psycopg.Connection[DictRow]):
    database.execute("UPDATE ohlcv_data SET high = low - 1 WHERE timestamp > now() - INTERVAL '10 minutes'")
    assert failed(database, RANGES) == {"measures_are_not_negative"}
    database.execute(
        "CREATE OR REPLACE VIEW volatility_1m AS SELECT timestamp, symbol, high - low AS range FROM ohlcv_data "
        "WHERE timestamp < now() - INTERVAL '20 minutes'"
    )
    assert failed(database, RANGES) == {"last_row_is_fresh"}


@pytest.mark.parametrize(
    ("check", "columns"),
    [
        ("bands_lie_around_vwap", "v.vwap, v.deviation, v.vwap + 1 AS lower_2"),
        ("measures_are_not_negative", "v.vwap, -v.deviation - 1 AS deviation, v.lower_2"),
    ],
)
def test_bands_that_are_wrong_are_found(database: psycopg.Connection[DictRow], check: str, columns: str):
    database.execute("ALTER FUNCTION vwap_bands RENAME TO sound_bands")
    database.execute(
        "CREATE FUNCTION vwap_bands(s text, b timestamptz, e timestamptz) RETURNS SETOF vwap_bands LANGUAGE sql AS $$ "
        "SELECT v.timestamp, v.symbol, v.from_timestamp, x.vwap, x.deviation, x.lower_2, v.lower_1, v.upper_1, "
        f"v.upper_2 FROM sound_bands(s, b, e) AS v CROSS JOIN LATERAL (SELECT {columns}) AS x $$"
    )
    assert failed(database, BANDS) == {check}
    database.execute(
        "CREATE OR REPLACE FUNCTION vwap_bands(s text, b timestamptz, e timestamptz) RETURNS SETOF vwap_bands "
        "LANGUAGE sql AS $$ SELECT * FROM sound_bands(s, b, e) LIMIT 0 $$"
    )
    assert failed(database, BANDS) == {"last_row_is_fresh"}


def test_a_view_that_lacks_the_newest_bar_is_found(database: psycopg.Connection[DictRow]):
    database.execute("ALTER FUNCTION volatility RENAME TO sound_volatility")
    database.execute(
        "CREATE FUNCTION volatility(s text, b timestamptz, e timestamptz, n integer) RETURNS SETOF volatility_30 "
        "LANGUAGE sql AS $$ SELECT * FROM sound_volatility(s, b, e - INTERVAL '1 minute', n) $$"
    )
    assert failed(database, WINDOWS[0]) == {"last_row_is_fresh"}
    database.execute(
        "CREATE OR REPLACE FUNCTION volatility(s text, b timestamptz, e timestamptz, n integer) "
        "RETURNS SETOF volatility_30 LANGUAGE sql AS $$ SELECT * FROM sound_volatility(s, b, e, n) LIMIT 0 $$"
    )
    assert failed(database, WINDOWS[0]) == {"last_row_is_fresh"}


@pytest.fixture
def instance(product: Settings) -> Iterator[DagsterInstance]:
    with DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.mark.parametrize(
    ("age", "records", "seconds", "keeps_up"),
    [(0, 0, 0.5, True), (50, 50_000, 30, True), (70, 0, 0.5, False), (0, 50_001, 1, False), (0, 10, 31, False)],
)
def test_a_stream_that_stands_still_or_is_behind_is_found(
    shared_stack: Stack, product: Settings, age: int, records: int, seconds: float, keeps_up: bool
):
    with shared_stack.connect() as connection:
        connection.execute("DELETE FROM stream_stats WHERE stream = 'tick-stream'")
        connection.execute(
            "INSERT INTO stream_stats "
            "(recorded_at, stream, records, rows_per_second, lag_records, lag_seconds, dropped_late) "
            "VALUES (now() - %s * INTERVAL '1 second', 'tick-stream', 1, 1, %s, %s, 0)",
            [age, records, seconds],
        )
    outcome = tick_stream_keeps_up(timescale=TimescaleResource(db_url=product.db_url))
    assert outcome.passed is keeps_up
    assert outcome.metadata["lag_records"].value == records
    assert ("sample" in outcome.metadata) is not keeps_up


def test_a_stream_that_never_ran_is_found(shared_stack: Stack, product: Settings):
    with shared_stack.connect() as connection:
        connection.execute("DELETE FROM stream_stats WHERE stream = 'tick-stream'")
    outcome = tick_stream_keeps_up(timescale=TimescaleResource(db_url=product.db_url))
    assert not outcome.passed and outcome.metadata["sample"].records[0].data["seconds_ago"] == "never"


def evaluations(instance: DagsterInstance, job: str) -> dict[tuple[str, str], Any]:
    done = defs().get_repository_def().get_job(job).execute_in_process(instance=instance)
    assert done.success
    return {(e.asset_key.to_user_string(), e.check_name): e for e in done.get_asset_check_evaluations()}


def test_both_jobs_evaluate_every_check_and_say_what_failed(shared_stack: Stack, instance: DagsterInstance):
    shared_stack.send(encode(trade("CHECKED", p=-1.0)), b"not Avro")
    shared_stack.catch_up("tick")
    found = evaluations(instance, "live_checks") | evaluations(instance, "table_checks")
    assert len(found) == 61
    letters = found["stock_ticks_dead_letter", "no_dead_letters"]
    assert not letters.passed and letters.severity == AssetCheckSeverity.WARN
    assert letters.metadata["rows"].value >= 2
    reasons = [record.data["reason"] for record in letters.metadata["sample"].records]
    assert any(reason.startswith("p is not") for reason in reasons)
    lag = found["tick_data", "stream_keeps_up"]
    assert "sql" in lag.metadata or lag.passed
    for evaluation in found.values():
        if evaluation.check_name != "bars_match_aggregate":
            assert evaluation.passed is (evaluation.metadata["rows"].value == 0)
        assert ("sample" in evaluation.metadata) is not evaluation.passed
    assert AssetKey("ohlcv_data") in {evaluation.asset_key for evaluation in found.values()}


def test_the_newest_evaluation_of_each_check_is_told_to_the_database(
    shared_stack: Stack, product: Settings, instance: DagsterInstance
):
    outcomes = []

    @asset
    def sold() -> None: ...

    @asset_check(asset=sold)
    def is_right() -> AssetCheckResult:
        return AssetCheckResult(passed=outcomes[-1], description=f"seen by {product.role('reader')[1]}")

    checked = Definitions([sold], asset_checks=[is_right], jobs=[define_asset_job("check", selection=[sold])])
    told = 'SELECT asset, "check", severity, passed, description FROM asset_check_state'
    for outcome in (True, False):
        outcomes.append(outcome)
        checked.resolve_job_def("check").execute_in_process(instance=instance)
        tell(instance, checked, product)
        assert shared_stack.query(told) == [("sold", "is_right", "ERROR", outcome, "seen by ***")]
    tell(instance, Definitions(), product)
    assert shared_stack.query(told) == []


def tell(instance: DagsterInstance, definitions: Definitions, product: Settings) -> None:
    resources = {"timescale": TimescaleResource(db_url=product.db_url)}
    with build_sensor_context(instance, definitions=definitions, resources=resources) as context:
        tell_of_checks(context)
