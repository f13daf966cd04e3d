"""What TimescaleDB's community edition does beside, and that ticks, bars and rollups are the same on both editions.

The tests of the community edition need a build of it for the embedded PostgreSQL, which is never part of the product:
TIMESCALEDB_OVERLAY, a folder or an archive of lib/ and extension/.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from dagster import DagsterInstance, RunRequest, SkipReason, build_schedule_context

from stock_pipeline.bars.restatement import settle_bars
from stock_pipeline.bars.rollups import ROLLUPS, refresh
from stock_pipeline.definitions import defs
from stock_pipeline.defs.quality.checks import bars_match_aggregate
from stock_pipeline.defs.retention import drop_old_ticks_daily
from stock_pipeline.local.downloads import MANIFEST, cache_folder, timescaledb, write_manifest
from stock_pipeline.local.timescaledb import TimescaleDB
from stock_pipeline.resources.timescale import TimescaleResource
from stock_pipeline.settings import Settings, load_settings
from stock_pipeline_tests.conftest import Stack, eventually, on_free_ports
from stock_pipeline_tests.expected_bars import COLUMNS, assert_same_bars, bars_frame, expected_bars
from stock_pipeline_tests.expected_rollups import expected_rollup
from stock_pipeline_tests.stack.test_bars_of_a_million import publish

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

TRADES = 120_000
"""More than TimescaleDB turns back into rows in a transaction, unless told to."""

DAY = pd.Timestamp.now("UTC").floor("D") - pd.Timedelta(days=20)

SYMBOLS = ["BINANCE:OLD", "KRAKEN:OLD", "OANDA:OLD"]


@pytest.fixture(scope="module")
def community_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which the unpacked PostgreSQL has the community edition."""
    overlay = os.environ.get("TIMESCALEDB_OVERLAY")
    if not overlay:
        pytest.skip("no community edition of TimescaleDB: TIMESCALEDB_OVERLAY is not set")
    folder = tmp_path_factory.mktemp("community")
    if (unpacked := Path(overlay)).is_file():
        shutil.unpack_archive(overlay, unpacked := folder / "overlay", filter="data")
    apache = timescaledb(None)
    community = folder / cache_folder().name / apache.name
    shutil.copytree(apache, community, symlinks=True)
    shutil.copytree(unpacked / "lib", community / "usr/lib/postgresql/17/lib", dirs_exist_ok=True)
    shutil.copytree(unpacked / "extension", community / "usr/share/postgresql/17/extension", dirs_exist_ok=True)
    write_manifest(community, community / MANIFEST)
    for path in cache_folder().glob("jars-*"):
        (community.parent / path.name).symlink_to(path)
    return folder


SETTLED = """
SELECT
    count(*) > 0
    AND min(least(tick_complete_until, ohlcv_complete_until)) > %s
    AND NOT EXISTS (SELECT FROM late_minute)
    AND NOT EXISTS (SELECT FROM ohlcv_data WHERE symbol LIKE '%%:OLD' AND NOT is_final)
FROM stream_position
"""


@dataclass
class Edition:
    """A stack whose streams run and have taken in trades of three weeks ago.

    Attributes:
        trades: as `publish` wants them; with seq, as `expected_bars` wants them.
    """

    stack: Stack
    is_community: bool
    trades: pd.DataFrame

    def take_in(self, trades: pd.DataFrame) -> None:
        publish(self.stack, trades, 0, len(trades))
        self.settle()
        self.trades = pd.concat([self.trades, trades], ignore_index=True)

    def start_streams(self) -> None:
        for name in ("tick", "ohlcv"):
            self.stack.start("stream", name)

    def settle(self) -> None:
        """Wait until both streams have committed all that Kafka holds now, and the bars of it are settled."""
        [(now,)] = self.stack.query("SELECT now()")
        eventually(lambda: self.stack.query(SETTLED, now) == [(True,)], 240)

    def expected(self) -> pd.DataFrame:
        times = pd.to_datetime(self.trades["time_ms"], unit="ms", utc=True)
        return expected_bars(self.trades.assign(event_time=times))

    def stored(self, table: str = "ohlcv_data") -> pd.DataFrame:
        columns = f"timestamp, symbol, {', '.join(COLUMNS)}"
        return bars_frame(self.stack.query(f"SELECT {columns} FROM {table} WHERE symbol LIKE '%%:OLD'"))


def generate(count: int, minutes: int, seed: int) -> pd.DataFrame:
    """Trades of three symbols in the first minutes of DAY's afternoon, which come now; some with conditions."""
    chance = np.random.default_rng(seed)
    begin = int((DAY + pd.Timedelta(hours=14)).timestamp() * 1000)
    conditions = np.array([None, ["1"], ["12"], ["18"]], dtype=object)
    frame = pd.DataFrame(
        {
            "symbol": chance.choice(SYMBOLS, count),
            "price": np.round(100 * np.exp(chance.normal(0, 0.01, count)), 2),
            "time_ms": begin + chance.integers(0, minutes * 60_000, count),
            "volume": chance.integers(0, 500, count) / 10,
            "arrived_ms": int(pd.Timestamp.now("UTC").timestamp() * 1000),
            "seq": 0,
        }
    )
    frame["conditions"] = chance.choice(conditions, count, p=[0.7, 0.1, 0.1, 0.1])
    return frame


@pytest.fixture(scope="module", params=["apache", "community"])
def edition(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edition]:
    stack = on_free_ports(tmp_path_factory.mktemp(request.param) / "home")
    is_community = request.param == "community"
    if is_community:
        stack.environment = {**stack.environment, "XDG_CACHE_HOME": str(request.getfixturevalue("community_cache"))}
    up = stack.command("up")
    assert up.returncode == 0, up.stderr
    result = Edition(stack, is_community, generate(0, 1, 0))
    result.start_streams()
    result.take_in(generate(TRADES, 120, 1))
    yield result
    stack.stop_started()
    assert stack.command("down", "--wipe").returncode == 0


@pytest.fixture(scope="module")
def settings(edition: Edition) -> Iterator[Settings]:
    """The settings of the edition's stack, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in edition.stack.environment.items():
            patch.setenv(name, value)
        load_settings.cache_clear()
        yield load_settings()
    load_settings.cache_clear()


@pytest.fixture
def timescale(settings: Settings) -> TimescaleResource:
    return TimescaleResource(db_url=settings.db_url)


@pytest.fixture
def old(edition: Edition) -> Edition:
    """Old chunks as the edition keeps them: the community edition as columns, all of their rows."""
    if edition.is_community:
        run_jobs(edition.stack, "policy_compression")
        assert edition.stack.query(
            "SELECT hypertable_name, bool_and(is_compressed), bool_or(is_compressed) "
            "FROM timescaledb_information.chunks WHERE hypertable_name IN ('tick_data', 'ohlcv_data') "
            "AND range_end < now() - INTERVAL '8 days' GROUP BY hypertable_name ORDER BY hypertable_name"
        ) == [("ohlcv_data", True, True), ("tick_data", True, True)]
    return edition


def run_jobs(stack: Stack, procedure: str) -> None:
    """Run TimescaleDB's jobs of a procedure at once, as its scheduler would when they are due."""
    jobs = stack.query("SELECT job_id FROM timescaledb_information.jobs WHERE proc_name = %s", procedure)
    assert jobs
    with stack.connect() as connection:
        for (job,) in jobs:
            connection.execute(f"CALL run_job({job})")


def assert_is_right(edition: Edition) -> None:
    """Ticks and bars are those of all trades that were sent, and final, and the product agrees."""
    assert edition.stack.query("SELECT count(*) FROM tick_data WHERE symbol LIKE '%%:OLD'") == [(len(edition.trades),)]
    assert_same_bars(edition.stored(), edition.expected())
    assert edition.stack.query("SELECT FROM ohlcv_data WHERE symbol LIKE '%%:OLD' AND NOT is_final") == []
    done = edition.stack.command("reconcile")
    assert (done.returncode, done.stdout) == (0, ""), done.stdout[:2000] + done.stderr


def test_late_trades_get_into_their_old_bars(old: Edition):
    assert_is_right(old)
    old.take_in(generate(300, 130, 2))
    assert_is_right(old)
    changes = old.stack.query("SELECT cause, count(*) > 0 FROM ohlcv_restatement WHERE old_ticks > 0 GROUP BY cause")
    assert changes == [("late trade", True)]


def test_streams_that_begin_again_write_nothing_twice(old: Edition):
    before = old.stored()
    old.stack.stop_started()
    shutil.rmtree(old.stack.home / "checkpoints")
    with old.stack.connect() as connection:
        connection.execute("UPDATE stream_offset SET next_offset = 0")
    old.start_streams()
    old.settle()
    assert_same_bars(old.stored(), before)
    assert_is_right(old)


def test_gaps_are_marked_in_old_bars(old: Edition, settings: Settings):
    begin = DAY + pd.Timedelta(hours=14, minutes=30, seconds=15)
    with old.stack.connect() as connection:
        connection.execute(
            "INSERT INTO feed_gap (symbol, started, ended, cause) VALUES ('OANDA:OLD', %s, %s, 'silent')",
            [begin, begin + pd.Timedelta(minutes=2)],
        )
    marked = "SELECT symbol, gap_seconds FROM ohlcv_data WHERE gap_seconds > 0 ORDER BY symbol, timestamp"
    expected = [("OANDA:OLD", 45.0), ("OANDA:OLD", 60.0), ("OANDA:OLD", 15.0)]
    eventually(lambda: old.stack.query(marked) == expected, 30)
    assert settle_bars(settings)["marked"] == 0
    assert_is_right(old)


def test_wrong_old_bars_are_found_and_repaired(old: Edition):
    minutes = [DAY + pd.Timedelta(hours=14, minutes=minute) for minute in (5, 65)]
    with old.stack.connect() as connection:
        for minute in minutes:
            at = [minute, "BINANCE:OLD"]
            connection.execute("UPDATE ohlcv_data SET high = high + 1 WHERE timestamp = %s AND symbol = %s", at)
        connection.execute("DELETE FROM ohlcv_data WHERE timestamp = %s AND symbol = 'KRAKEN:OLD'", minutes[:1])
        connection.execute(
            "INSERT INTO ohlcv_data "
            "SELECT timestamp, 'NO:TRADE', open, high, low, close, volume, trades, ticks, vwap, updated_at "
            "FROM ohlcv_data WHERE timestamp = %s AND symbol = 'OANDA:OLD'",
            minutes[:1],
        )
    done = old.stack.command("reconcile", "--repair")
    assert (done.returncode, len(done.stdout.splitlines())) == (1, 4), done.stderr
    old.settle()
    assert_is_right(old)


def test_rollups_of_old_bars_equal_pandas(old: Edition):
    for _ in range(2):
        with old.stack.connect("writer") as connection:
            for rollup in ROLLUPS:
                refresh(connection, rollup)
        for rollup in ROLLUPS:
            assert_same_bars(old.stored(rollup.table), expected_rollup(old.expected(), rollup.table))
        old.take_in(generate(10, 130, 3))


def test_a_rebuild_replaces_more_old_ticks_than_timescaledb_lets_pass(old: Edition):
    with old.stack.connect() as connection:
        at = [DAY + pd.Timedelta(hours=14, minutes=10)]
        connection.execute("UPDATE tick_data SET price = price + 1 WHERE symbol = 'OANDA:OLD' AND event_time < %s", at)
        connection.execute("DELETE FROM ohlcv_data WHERE symbol = 'KRAKEN:OLD' AND timestamp < %s", at)
    if old.is_community:
        run_jobs(old.stack, "policy_compression")
    begin, end = (DAY + pd.Timedelta(hours=hour) for hour in (13, 17))
    done = old.stack.command("rebuild", "--from", begin.isoformat(), "--to", end.isoformat())
    assert done.returncode == 0, done.stderr
    old.settle()
    assert_is_right(old)


def test_timescaledb_has_its_own_opinion_of_a_bar(old: Edition, timescale: TimescaleResource):
    """Half an hour of ticks, one a minute at 10, of which the newest has the condition of an odd lot."""
    newest = pd.Timestamp.now("UTC").floor("min") - pd.Timedelta(minutes=20)
    before = newest - pd.Timedelta(minutes=1)
    if not old.is_community:
        outcome = bars_match_aggregate(timescale=timescale)
        assert outcome.passed and "no continuous aggregates" in outcome.description
        return

    def wrong_bars() -> int:
        outcome = bars_match_aggregate(timescale=timescale)
        rows = outcome.metadata["rows"].value
        assert outcome.passed is (rows == 0)
        return rows

    with old.stack.connect() as connection:
        connection.execute(
            "INSERT INTO tick_data SELECT 'BINANCE:NEW', 10, at, 2, 0, NULL, at "
            "FROM generate_series(%s - INTERVAL '30 minutes', %s, INTERVAL '1 minute') AS at",
            [newest, newest],
        )
        connection.execute(
            "INSERT INTO ohlcv_data SELECT event_time, symbol, 10, 10, 10, 10, 2, 1, 1, 10 FROM tick_data "
            "WHERE symbol = 'BINANCE:NEW'"
        )
        another = "INSERT INTO tick_data VALUES ('BINANCE:NEW', 99, %s, 1, 1, %s, %s)"
        connection.execute(another, [newest, ["12"], newest])
        run_jobs(old.stack, "policy_refresh_continuous_aggregate")
        assert old.stack.query("SELECT count(*) FROM tick_minute WHERE symbol = 'BINANCE:NEW'") == [(31,)]
        assert wrong_bars() == 0
        # What has come since the refresh is no difference yet.
        connection.execute(another, [before, None, before])
        assert wrong_bars() == 0
        run_jobs(old.stack, "policy_refresh_continuous_aggregate")
        assert wrong_bars() == 1
        changes = ("high = 11", "low = 9", "volume = 2 * (1 + 2e-9)", "trades = 2", "ticks = 0")
        for minutes, change in enumerate(changes, 1):
            at = [before - pd.Timedelta(minutes=minutes)]
            connection.execute(f"UPDATE ohlcv_data SET {change} WHERE symbol = 'BINANCE:NEW' AND timestamp = %s", at)
            assert wrong_bars() == 1 + minutes
        connection.execute("DELETE FROM ohlcv_data WHERE symbol = 'BINANCE:NEW' AND timestamp < %s", at)
        assert wrong_bars() == 6 + 24
        for table in ("tick_data", "ohlcv_data"):
            connection.execute(f"DELETE FROM {table} WHERE symbol = 'BINANCE:NEW'")


def test_old_ticks_are_dropped_by_the_database_or_by_dagster(old: Edition, timescale: TimescaleResource):
    bars = old.stored()
    with build_schedule_context(resources={"timescale": timescale}) as context:
        tick = drop_old_ticks_daily(context)
    with DagsterInstance.ephemeral() as instance, pytest.MonkeyPatch.context() as patch:
        for days, kept in ((30, len(old.trades)), (18, 0)):
            if old.is_community:
                assert isinstance(tick, SkipReason)
                assert old.stack.command("init-db", TICK_RETENTION_DAYS=str(days)).returncode == 0
                run_jobs(old.stack, "drop_old_ticks")
            else:
                assert isinstance(tick, RunRequest)
                patch.setenv("TICK_RETENTION_DAYS", str(days))
                load_settings.cache_clear()
                job = defs().get_repository_def().get_job("drop_old_ticks")
                assert job.execute_in_process(instance=instance).success
            assert old.stack.query("SELECT count(*) FROM tick_data WHERE symbol LIKE '%%:OLD'") == [(kept,)]
    assert old.stack.query("SELECT dropped_before FROM tick_retention") == [((DAY + pd.Timedelta(days=1)),)]
    done = old.stack.command("rebuild", "--from", DAY.isoformat(), "--to", (DAY + pd.Timedelta(days=1)).isoformat())
    assert done.returncode == 1 and "have been dropped" in done.stderr
    done = old.stack.command("reconcile")
    assert (done.returncode, done.stdout) == (0, "")
    assert_same_bars(old.stored(), bars)


FEATURES = """
SELECT proc_name, hypertable_name, config ->> 'days'
FROM timescaledb_information.jobs
WHERE owner::text = 'stocks_owner'
ORDER BY proc_name, hypertable_name
"""

ALL_FEATURES = [
    ("drop_old_ticks", None, "90"),
    ("policy_compression", "ohlcv_data", None),
    ("policy_compression", "tick_data", None),
    ("policy_refresh_continuous_aggregate", "tick_minute", None),
    ("policy_retention", "tick_minute", None),
]


def test_a_database_that_becomes_one_of_the_community_edition_gets_its_features(
    own: Stack, community_cache: Path, monkeypatch: pytest.MonkeyPatch
):
    own.environment = {**own.environment, "XDG_CACHE_HOME": str(community_cache)}
    for name, value in own.environment.items():
        monkeypatch.setenv(name, value)
    server = TimescaleDB(Settings())
    server.install()
    server.prepare()
    configuration = own.home / "timescaledb" / "postgresql.auto.conf"
    for license_, features in (("apache", []), ("timescale", ALL_FEATURES)):
        with configuration.open("a") as target:
            target.write(f"timescaledb.license = '{license_}'\n")
        for command in ("up", "init-db", "init-db"):
            done = own.command(command)
            assert done.returncode == 0, done.stderr
        assert own.query("SHOW timescaledb.license") == [(license_,)]
        assert own.query(FEATURES) == features
        assert own.command("down").returncode == 0
