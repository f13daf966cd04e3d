"""What Dagster shows of the project: every asset, job, schedule, sensor and check by name, and what each has to say."""

from functools import cache

import pytest
from dagster import AssetKey, AssetSpec, DefaultScheduleStatus, DefaultSensorStatus, RepositoryDefinition

from stock_pipeline.definitions import defs

ASSETS = {
    "ingest": {"finnhub_trades", "stock_ticks", "stock_ticks_dead_letter"},
    "market_data": {"tick_data", "ohlcv_data"},
    "reference": {"instrument", "market_session", "trade_condition"},
    "analytics": {
        *("ohlcv_5m", "ohlcv_15m", "ohlcv_1h", "ohlcv_1d"),
        *("volatility_1m", "volatility_30", "volatility_60", "volatility_1440", "vwap_bands"),
    },
    "operations": {
        *("asset_check_state", "feed_gap", "ohlcv_restatement", "service_heartbeat", "stream_stats"),
    },
    "dashboards": {"market_dashboard", "pipeline_health_dashboard"},
}

PARENTS = {
    "ohlcv_data": {"stock_ticks", "market_session", "trade_condition"},
    "ohlcv_5m": {"ohlcv_data"},
    "ohlcv_15m": {"ohlcv_5m"},
    "ohlcv_1h": {"ohlcv_15m"},
    "ohlcv_1d": {"ohlcv_15m", "market_session", "instrument"},
    "volatility_30": {"ohlcv_data", "instrument"},
    "vwap_bands": {"ohlcv_data", "market_session", "instrument"},
    "market_dashboard": {
        *("instrument", "feed_gap", "ohlcv_data", "ohlcv_5m", "ohlcv_15m", "ohlcv_1h", "ohlcv_1d"),
        *("volatility_1m", "volatility_30", "volatility_60", "volatility_1440", "vwap_bands"),
    },
    "pipeline_health_dashboard": {
        *(
            "ohlcv_data",
            "ohlcv_15m",
            "asset_check_state",
            "feed_gap",
            "ohlcv_restatement",
            "service_heartbeat",
            "stream_stats",
        ),
    },
}

JOBS = {
    *("producer", "tick_stream", "ohlcv_stream"),
    *("rollups", "live_checks", "table_checks", "delete_old_runs", "drop_old_ticks", "change_symbols"),
}

SCHEDULES = {"check_live", "check_tables", "delete_old_runs_hourly", "drop_old_ticks_daily", "refresh_rollups"}

SENSORS = {
    *("alert", "automation", "tell_of_checks"),
    *("keep_ohlcv_stream_running", "keep_producer_running", "keep_tick_stream_running"),
}

OF_BARS = {"high_is_highest", "low_is_lowest", "prices_are_positive", "keys_are_unique", "symbols_are_there"}

OF_VIEWS = {"measures_are_not_negative", "last_row_is_fresh"}

CHECKS = {
    "finnhub_trades": {"feed_was_there"},
    "stock_ticks_dead_letter": {"no_dead_letters"},
    "tick_data": {
        *("prices_are_positive", "keys_are_unique", "symbols_are_there", "clocks_agree", "subscribed_symbols_trade"),
        *("conditions_are_known", "stream_keeps_up"),
    },
    "ohlcv_data": {*OF_BARS, "bars_match_ticks", "bars_match_aggregate", "bars_are_fresh", "stream_keeps_up"},
    **{f"ohlcv_{width}": {*OF_BARS, "sums_are_those_of_finer_bars"} for width in ("5m", "15m", "1h", "1d")},
    **{
        f"volatility_{bars}": {*OF_VIEWS, "jump_share_is_a_share", "full_windows_have_values"}
        for bars in (30, 60, 1440)
    },
    "volatility_1m": OF_VIEWS,
    "vwap_bands": {*OF_VIEWS, "bands_lie_around_vwap"},
    **dict.fromkeys(("market_dashboard", "pipeline_health_dashboard"), {"every_panel_answers"}),
}

NEVER_SLEEP = {"tick_data", "ohlcv_data", "ohlcv_5m", "ohlcv_15m", "ohlcv_1h", "ohlcv_1d", "market_session"}
"""Assets that are reported or made however quiet the markets are."""


@cache
def repository() -> RepositoryDefinition:
    return defs().get_repository_def()


@cache
def specs() -> dict[str, AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in defs().resolve_all_asset_specs()}


def test_the_assets_are_these():
    groups: dict[str, set[str]] = {}
    for name, spec in specs().items():
        groups.setdefault(spec.group_name, set()).add(name)
    assert groups == ASSETS


@pytest.mark.parametrize(("name", "parents"), PARENTS.items())
def test_the_lineage_is_this(name: str, parents: set[str]):
    keys = repository().asset_graph.get(AssetKey(name)).parent_keys
    assert {key.to_user_string() for key in keys} == parents


def test_jobs_schedules_and_sensors_are_these_and_all_are_on():
    assert {job.name for job in repository().get_all_jobs()} - {"__ASSET_JOB"} == JOBS
    assert {schedule.name for schedule in repository().schedule_defs} == SCHEDULES
    assert {sensor.name for sensor in repository().sensor_defs} == SENSORS
    assert {s.default_status for s in repository().schedule_defs} == {DefaultScheduleStatus.RUNNING}
    assert {s.default_status for s in repository().sensor_defs} == {DefaultSensorStatus.RUNNING}


def test_the_checks_are_these_and_each_is_on_a_schedule():
    checks: dict[str, set[str]] = {}
    for key in repository().asset_graph.asset_check_keys:
        checks.setdefault(key.asset_key.to_user_string(), set()).add(key.name)
    assert checks == CHECKS
    jobs = [repository().get_job(name) for name in ("live_checks", "table_checks")]
    scheduled = [key for job in jobs for key in job.asset_layer.asset_graph.asset_check_keys]
    assert sorted(scheduled) == sorted(repository().asset_graph.asset_check_keys)


@pytest.mark.parametrize("name", sorted(set.union(*ASSETS.values())))
def test_every_asset_says_what_it_is(name: str):
    spec = specs()[name]
    assert spec.group_name and spec.kinds and spec.tags
    assert spec.owners == ["team:market-data"]
    assert len(spec.description) > 80
    if spec.group_name == "dashboards":
        # Pages have neither rows nor columns.
        return
    assert "Grain: " in spec.description and "Key: " in spec.description
    assert (spec.freshness_policy is not None) is (name in NEVER_SLEEP)
    columns = {column.name for column in spec.metadata["dagster/column_schema"].columns}
    assert columns
    if spec.group_name in ("market_data", "analytics"):
        lineage = spec.metadata["dagster/column_lineage"].deps_by_column
        assert set(lineage) <= columns
        for column in (dep for deps in lineage.values() for dep in deps):
            source = specs()[column.asset_key.to_user_string()]
            assert column.asset_key in {dep.asset_key for dep in spec.deps}
            assert column.column_name in {c.name for c in source.metadata["dagster/column_schema"].columns}


def test_the_column_schemas_are_those_of_sql_and_avro():
    columns = {column.name: column for column in specs()["tick_data"].metadata["dagster/column_schema"].columns}
    assert list(columns) == ["symbol", "price", "event_time", "volume", "seq", "conditions", "received_at"]
    assert columns["conditions"].constraints.nullable
    assert not columns["seq"].constraints.nullable
    topic = [column.name for column in specs()["stock_ticks"].metadata["dagster/column_schema"].columns]
    assert topic == ["type", "data", "data.s", "data.p", "data.t", "data.v", "data.c"]
