"""The rollups: equal to pandas, and made anew where a finer bar has changed, and only there."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import psycopg
import pytest

from stock_pipeline.bars.rollups import ROLLUPS, Refreshed, has_changed, refresh
from stock_pipeline.settings import Settings
from stock_pipeline.sql_files import load_sql
from stock_pipeline_tests.expected_bars import COLUMNS, assert_same_bars, bars_frame
from stock_pipeline_tests.expected_rollups import expected_rollup

pytestmark = pytest.mark.stack

FIVE, FIFTEEN, HOUR, DAY = ROLLUPS

MINUTE = datetime(2026, 11, 25, 14, 31, tzinfo=UTC)
"""A minute after New York has opened."""

LATER = MINUTE + timedelta(days=30)


@pytest.fixture
def database(product: Settings) -> Iterator[psycopg.Connection]:
    """A connection whose work is undone; no bar is in it, and what was received until LATER is committed."""
    with psycopg.connect(product.conninfo("owner")) as connection, connection.transaction(force_rollback=True):
        known = ("suspected_duplicate", "feed_gap", "stale_bar", "stream_offset")
        for table in ("ohlcv_data", *(rollup.table for rollup in ROLLUPS), *known):
            connection.execute(psycopg.sql.SQL("DELETE FROM {}").format(psycopg.sql.Identifier(table)))
        connection.execute("DELETE FROM stale_bar")
        connection.execute(
            "INSERT INTO stream_offset SELECT s, 'topic', 0, 0, now(), %s "
            "FROM unnest(ARRAY['tick-stream', 'ohlcv-stream']) AS s",
            [LATER],
        )
        connection.execute(
            "INSERT INTO instrument VALUES ('ROLL', 'stock', 'XNYS', 98280), "
            "('BINANCE:ROLL', 'crypto', '24/7', 525600), ('OANDA:ROLL', 'forex', '24/5', 374400)"
        )
        yield connection


def put(connection: psycopg.Connection, bars: pd.DataFrame, is_final: bool = True) -> None:
    rows = bars.reset_index()[["timestamp", "symbol", *COLUMNS]].astype(object)
    rows = rows.where(rows.notna(), None)
    with connection.cursor() as cursor:
        cursor.executemany(
            f"INSERT INTO ohlcv_data (timestamp, symbol, {', '.join(COLUMNS)}, is_final) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [(*row, is_final) for row in rows.itertuples(index=False)],
        )


def stored(connection: psycopg.Connection, table: str) -> pd.DataFrame:
    columns = f"timestamp, symbol, {', '.join(COLUMNS)}"
    return bars_frame(connection.execute(f"SELECT {columns} FROM {table}").fetchall())


def random_bars(seed: int) -> pd.DataFrame:
    """Bars of three symbols over five days with Thanksgiving in them, a third of the minutes missing."""
    chance = np.random.default_rng(seed)
    minutes = pd.date_range("2026-11-24", "2026-11-28 23:59", freq="min", tz="UTC")
    frames = []
    for symbol in ("ROLL", "BINANCE:ROLL", "OANDA:ROLL"):
        kept = minutes[chance.random(len(minutes)) < 0.66]
        count = len(kept)
        o, c = 100 + chance.random((2, count))
        volume = np.where(chance.random(count) < 0.2, 0.0, chance.random(count) * 10)
        frames.append(
            pd.DataFrame(
                {
                    "timestamp": kept,
                    "symbol": symbol,
                    "open": o,
                    "high": np.maximum(o, c) + chance.random(count),
                    "low": np.minimum(o, c) - chance.random(count),
                    "close": c,
                    "volume": volume,
                    "trades": chance.integers(1, 9, count),
                    "ticks": chance.integers(9, 20, count),
                    "vwap": np.where(volume > 0, (o + c) / 2, np.nan),
                }
            )
        )
    return pd.concat(frames).set_index(["timestamp", "symbol"]).sort_index()


def test_every_rollup_equals_pandas(database: psycopg.Connection):
    bars = random_bars(1)
    put(database, bars)
    for rollup in ROLLUPS:
        assert has_changed(database, rollup)
        refresh(database, rollup)
        assert_same_bars(stored(database, rollup.table), expected_rollup(bars, rollup.table))
    days = {time for time, symbol in stored(database, "ohlcv_1d").index if symbol == "ROLL"}
    assert days == {pd.Timestamp(f"2026-11-{day} 14:30", tz="UTC") for day in (24, 25, 27)}
    for rollup in ROLLUPS:
        assert not has_changed(database, rollup)
        assert refresh(database, rollup) == [], "nothing has changed since"


def bar(price: float, at: datetime = MINUTE, symbol: str = "BINANCE:ROLL", volume: float = 1.0) -> pd.DataFrame:
    values = [[price, price, price, price, volume, 1, 1, price]]
    keys = pd.MultiIndex.from_tuples([(pd.Timestamp(at), symbol)], names=["timestamp", "symbol"])
    return pd.DataFrame(values, columns=COLUMNS, index=keys)


def refresh_all(database: psycopg.Connection) -> dict[str, list[Refreshed]]:
    return {rollup.table: refresh(database, rollup) for rollup in ROLLUPS}


def one(at: datetime = MINUTE) -> list[Refreshed]:
    return [Refreshed(at.date(), looked_at=1, changed=1)]


def test_a_final_bar_that_changes_changes_the_bars_above_it_and_no_others(database: psycopg.Connection):
    put(database, random_bars(2))
    refresh_all(database)
    database.execute(
        "UPDATE ohlcv_data SET high = 999 WHERE symbol = 'BINANCE:ROLL' AND timestamp = "
        "(SELECT min(timestamp) FROM ohlcv_data WHERE symbol = 'BINANCE:ROLL' AND timestamp > %s)",
        [MINUTE],
    )
    assert refresh_all(database) == dict.fromkeys(("ohlcv_5m", "ohlcv_15m", "ohlcv_1h", "ohlcv_1d"), one())
    for rollup in ROLLUPS:
        assert database.execute(f"SELECT count(*) FROM {rollup.table} WHERE high = 999").fetchone() == (1,)


def test_a_bar_that_is_not_final_is_looked_at_until_it_is(database: psycopg.Connection):
    put(database, bar(10.0), is_final=False)
    for _ in range(2):
        assert refresh(database, FIVE)[0].looked_at == 1
    assert database.execute("SELECT is_final FROM ohlcv_5m").fetchall() == [(False,)]
    # It became final while nobody looked.
    database.execute("UPDATE ohlcv_data SET is_final = TRUE, close = 10.5, high = 10.5")
    assert refresh_all(database)["ohlcv_5m"] == one()
    for rollup in ROLLUPS:
        assert database.execute(f"SELECT close, is_final FROM {rollup.table}").fetchall() == [(10.5, True)]
        assert refresh(database, rollup) == []


def test_a_bucket_is_not_final_before_its_end_is(database: psycopg.Connection):
    put(database, bar(10.0))
    database.execute("UPDATE stream_offset SET complete_until = %s", [MINUTE + timedelta(minutes=25)])
    refresh_all(database)
    final = {r.table: database.execute(f"SELECT is_final FROM {r.table}").fetchone()[0] for r in ROLLUPS}
    # 14:31 lies in buckets that end at 14:35, 14:45, 15:00 and at midnight; final is what ended 15 minutes ago.
    assert final == {"ohlcv_5m": True, "ohlcv_15m": False, "ohlcv_1h": False, "ohlcv_1d": False}


def test_a_day_has_24_hours_where_the_clocks_of_the_server_change(database: psycopg.Connection):
    database.execute("SET LOCAL timezone TO 'America/New_York'")
    midnight = datetime(2026, 3, 8, tzinfo=UTC)
    for at in (midnight, midnight + timedelta(hours=23, minutes=59)):
        put(database, bar(1.0, at))
    refresh_all(database)
    days = database.execute("SELECT timestamp, ticks, is_final FROM ohlcv_1d").fetchall()
    assert days == [(midnight, 2, True)]


def test_a_bar_that_is_deleted_takes_its_rollups_with_it(database: psycopg.Connection):
    put(database, pd.concat([bar(10.0), bar(11.0, symbol="OANDA:ROLL")]))
    refresh_all(database)
    database.execute("DELETE FROM ohlcv_data WHERE symbol = 'OANDA:ROLL'")
    assert refresh_all(database) == dict.fromkeys((r.table for r in ROLLUPS), one())
    for rollup in ROLLUPS:
        assert list(stored(database, rollup.table).index.get_level_values("symbol")) == ["BINANCE:ROLL"]


@pytest.mark.parametrize("is_known_before", [True, False])
def test_seconds_of_an_outage_count_in_minutes_without_a_bar_too(database: psycopg.Connection, is_known_before: bool):
    bars = pd.concat([bar(10.0), bar(11.0, at=MINUTE + timedelta(minutes=1))])
    if not is_known_before:
        put(database, bars)
        refresh_all(database)
    gaps = [("14:32:30", "14:41:20", None), ("14:40:00", "14:50:00", "BINANCE:ROLL"), ("14:31:00", "14:59:00", "OTHER")]
    database.cursor().executemany(
        "INSERT INTO feed_gap (started, ended, symbol, cause) VALUES (%s::timestamptz, %s::timestamptz, %s, 'silent')",
        [(f"2026-11-25 {started}+00", f"2026-11-25 {ended}+00", symbol) for started, ended, symbol in gaps],
    )
    if is_known_before:
        put(database, bars)
    for statement in ("mark_gaps_of_rollups.sql", "mark_gaps.sql"):
        database.execute(load_sql(f"queries/{statement}"))
    refresh_all(database)
    marked = {r.table: database.execute(f"SELECT gap_seconds FROM {r.table}").fetchone()[0] for r in ROLLUPS}
    # From 14:32:30 to 14:50:00, of which buckets end at 14:35 and 14:45.
    assert marked == {"ohlcv_5m": 150, "ohlcv_15m": 750, "ohlcv_1h": 1050, "ohlcv_1d": 1050}
    assert database.execute("SELECT sum(gap_seconds) FROM ohlcv_data").fetchone() == (30,)
    database.execute(load_sql("queries/mark_gaps_of_rollups.sql"))
    assert all(refresh(database, rollup) == [] for rollup in ROLLUPS)


def test_a_session_that_moves_moves_its_day(database: psycopg.Connection):
    minutes = [MINUTE + timedelta(minutes=minutes) for minutes in (-15, 0, 60)]
    put(database, pd.concat([bar(10.0 + number, at, "ROLL") for number, at in enumerate(minutes)]))
    refresh_all(database)
    days = "SELECT timestamp, open FROM ohlcv_1d"
    opened = MINUTE.replace(minute=30)
    assert database.execute(days).fetchall() == [(opened, 11.0)]
    for opens, expected in [
        (opened - timedelta(minutes=30), 10.0),
        (opened + timedelta(minutes=30), 12.0),
        (None, None),
    ]:
        others = [opened.date() - timedelta(days=1), opened.date() + timedelta(days=1)]
        sessions = {day: datetime(day.year, day.month, day.day, 14, 30, tzinfo=UTC) for day in others}
        sessions |= {opened.date(): opens} if opens else {}
        values = {"session": list(sessions), "opens": list(sessions.values())}
        values |= {"calendar": "XNYS", "closes": [start.replace(hour=21, minute=0) for start in sessions.values()]}
        database.execute(load_sql("queries/upsert_market_sessions.sql"), values)
        refresh(database, DAY)
        assert database.execute(days).fetchall() == ([(opens, expected)] if opens else [])


def test_a_whole_range_is_made_anew_changed_or_not(database: psycopg.Connection):
    bars = random_bars(3)
    put(database, bars)
    refresh_all(database)
    day = (datetime(2026, 11, 25, tzinfo=UTC), datetime(2026, 11, 26, tzinfo=UTC))
    for rollup in ROLLUPS:
        database.execute(f"DELETE FROM {rollup.table} WHERE timestamp >= %s AND timestamp < %s", day)
        database.execute(f"UPDATE {rollup.table} SET open = 0 WHERE timestamp >= %s", [day[1]])
    database.execute("DELETE FROM stale_bar")
    for rollup in ROLLUPS:
        [done] = refresh(database, rollup, day)
        assert done.day == day[0].date() and done.changed == done.looked_at > 0
        expected, found = expected_rollup(bars, rollup.table), stored(database, rollup.table)
        times = expected.index.get_level_values("timestamp")
        before = times < pd.Timestamp(day[1])
        assert_same_bars(found[before], expected[before])
        assert (found["open"][~before] == 0).all(), "the other days stay as they are"
        database.execute("DELETE FROM stale_bar")


def test_a_long_range_is_made_anew_in_steps(database: psycopg.Connection, monkeypatch: pytest.MonkeyPatch):
    bars = random_bars(4)
    put(database, bars)
    database.execute("DELETE FROM stale_bar")
    monkeypatch.setattr("stock_pipeline.bars.rollups.STEP", timedelta(days=2))
    for rollup in ROLLUPS:
        done = refresh(database, rollup, (datetime(2026, 11, 24, tzinfo=UTC), datetime(2026, 11, 29, tzinfo=UTC)))
        assert [day.day.day for day in done] == [24, 25, 26, 27, 28]
        assert_same_bars(stored(database, rollup.table), expected_rollup(bars, rollup.table))


def test_no_change_is_lost_that_is_committed_while_a_refresh_runs(product: Settings):
    symbol, at = "RACE:ROLL", datetime(2026, 3, 3, 12, tzinfo=UTC)
    conninfo = product.conninfo("owner")
    with psycopg.connect(conninfo, autocommit=True) as one, psycopg.connect(conninfo, autocommit=True) as two:
        one.execute("INSERT INTO instrument VALUES (%s, 'crypto', '24/7', 525600)", [symbol])
        put(one, bar(10.0, at, symbol))
        refresh(one, FIVE)
        for price in (11.0, 12.0):
            one.execute("UPDATE ohlcv_data SET close = %s WHERE symbol = %s", [price - 0.5, symbol])
            with two.transaction():
                two.execute("UPDATE ohlcv_data SET close = %s WHERE symbol = %s", [price, symbol])
                refresh(one, FIVE)
            assert one.execute("SELECT close FROM ohlcv_5m WHERE symbol = %s", [symbol]).fetchone() == (price - 0.5,)
            refresh(one, FIVE)
            assert one.execute("SELECT close FROM ohlcv_5m WHERE symbol = %s", [symbol]).fetchone() == (price,)

        # Two refreshes at once: the one that waits reads what the other one left.
        with two.transaction():
            two.execute("UPDATE ohlcv_data SET close = 13 WHERE symbol = %s", [symbol])
            refresh(two, FIVE)
            waiting = threading.Thread(target=refresh, args=(one, FIVE, (at, at + timedelta(minutes=5))))
            waiting.start()
            waiting.join(timeout=1)
            assert waiting.is_alive()
        waiting.join(timeout=20)
        assert one.execute("SELECT close FROM ohlcv_5m WHERE symbol = %s", [symbol]).fetchone() == (13.0,)
        one.execute("DELETE FROM ohlcv_data WHERE symbol = %s", [symbol])
        refresh(one, FIVE)
