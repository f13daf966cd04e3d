"""A range built again from the topic equals what the streams wrote, and what the topic lacks is refused."""

import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from dagster import DagsterEventType, DagsterInstance, EventRecordsFilter

import stock_pipeline.ingest
from stock_pipeline_tests.conftest import Stack, on_free_ports
from stock_pipeline_tests.messages import encode, trade

pytestmark = pytest.mark.stack

RECORDING = Path(stock_pipeline.ingest.__file__).parent / "btcusdt_trades.csv.gz"
HOUR = ["--from", "2020-02-22T00:00", "--to", "2020-02-22T01:00"]

TICKS = "SELECT md5(string_agg(t::text, chr(10) ORDER BY symbol, event_time, seq)), count(*) FROM tick_data AS t"
BARS = """
SELECT
    md5(string_agg(
        (timestamp, symbol, open, high, low, close, trades, ticks)::text, chr(10) ORDER BY timestamp, symbol
    )),
    count(*)
FROM ohlcv_data
"""


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of its own that the streams filled from the recording, 50 trades a message."""
    stack = on_free_ports(tmp_path_factory.mktemp("rebuilt") / "home")
    assert stack.command("up").returncode == 0
    rows = pd.read_csv(RECORDING).to_dict("records")
    trades = [trade("BINANCE:BTCUSDT", p=row["p"], t=row["t"], v=row["v"]) for row in rows]
    for partition in range(4):
        part = trades[partition::4]
        stack.send(*(encode(*part[n : n + 50]) for n in range(0, len(part), 50)), partition=partition)
    stack.catch_up()
    yield stack
    assert stack.command("down", "--wipe").returncode == 0


def test_a_damaged_hour_becomes_what_the_streams_wrote(filled: Stack):
    before = filled.query(TICKS), filled.query(BARS)
    assert before[0][0][1] == 9_999
    sums = filled.query("SELECT volume, vwap FROM ohlcv_data ORDER BY timestamp")
    with filled.connect() as connection:
        connection.execute("DELETE FROM tick_data WHERE event_time BETWEEN '2020-02-22 00:10Z' AND '2020-02-22 00:20Z'")
        connection.execute("UPDATE tick_data SET price = price + 1 WHERE event_time < '2020-02-22 00:05Z'")
        connection.execute("DELETE FROM ohlcv_data WHERE timestamp < '2020-02-22 00:30Z'")
        connection.execute("UPDATE ohlcv_data SET close = close + 1 WHERE timestamp < '2020-02-22 00:50Z'")
        connection.execute("INSERT INTO ohlcv_data VALUES ('2020-02-22 00:31Z', 'NO:TRADE', 1, 1, 1, 1, 1, 1, 1, 1)")
    done = filled.command("rebuild", *HOUR)
    assert done.returncode == 0, done.stderr
    assert (filled.query(TICKS), filled.query(BARS)) == before
    for found, expected in zip(
        filled.query("SELECT volume, vwap FROM ohlcv_data ORDER BY timestamp"), sums, strict=True
    ):
        assert found == pytest.approx(expected, rel=1e-9)
    assert filled.query(
        "SELECT DISTINCT cause FROM ohlcv_restatement WHERE symbol = 'NO:TRADE' AND new_open IS NULL"
    ) == [("rebuild",)]
    assert filled.command("reconcile").returncode == 0


def test_readers_never_see_a_hole(filled: Stack):
    [(count,)] = filled.query("SELECT count(*) FROM tick_data")
    process = filled.start("rebuild", *HOUR)
    with filled.connect("reader") as reader:
        looks = 0
        while process.poll() is None:
            assert reader.execute("SELECT count(*) FROM tick_data").fetchone() == (count,)
            assert reader.execute("SELECT count(*) FROM ohlcv_data").fetchone() == (126,)
            looks += 1
            time.sleep(0.01)
    assert process.returncode == 0
    assert looks > 10


def test_one_symbol_leaves_the_others_alone(filled: Stack):
    filled.send(encode(trade("OTHER", t=1_582_329_700_000)))
    filled.catch_up()
    with filled.connect() as connection:
        connection.execute("UPDATE ohlcv_data SET close = 1, low = 1")
    done = filled.command("rebuild", *HOUR, "--symbol", "OTHER")
    assert done.returncode == 0, done.stderr
    closes = dict(filled.query("SELECT symbol, max(close) FROM ohlcv_data GROUP BY symbol"))
    assert closes == {"BINANCE:BTCUSDT": 1.0, "OTHER": 10.0}
    assert filled.command("rebuild", "--from", "2020-02-21", "--to", "2020-02-23").returncode == 0
    assert filled.command("reconcile").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--from", "2020-02-22T01:00", "--to", "2020-02-22T00:00"], "back to front"),
        (["--from", "2099-01-01", "--to", "2099-01-02"], "in the future"),
        ([*HOUR, "--symbol", "NOPE"], "never been a trade of 'NOPE'"),
    ],
)
def test_a_wrong_range_or_symbol_is_explained(filled: Stack, arguments: list[str], named: str):
    done = filled.command("rebuild", *arguments)
    assert done.returncode == 1
    assert named in done.stderr and "Traceback" not in done.stderr


def test_a_second_rebuild_at_once_is_refused(filled: Stack):
    with filled.connect("writer") as connection:
        connection.execute("SELECT pg_advisory_lock(hashtext('stock_pipeline.rebuild'))")
        done = filled.command("rebuild", *HOUR)
    assert done.returncode == 1
    assert "another rebuild is running" in done.stderr


def dagster(stack: Stack, folder: Path, *arguments: str) -> None:
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "dagster", *arguments, "-m", "stock_pipeline.definitions"],
        env={**stack.environment, "DAGSTER_HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr


def test_materialising_an_hour_in_dagster_repairs_it(filled: Stack, tmp_path: Path):
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
    filled.send(encode(trade("BY:CLICK", t=int(hour.timestamp() * 1000))))
    filled.catch_up()
    with filled.connect() as connection:
        connection.execute("DELETE FROM tick_data WHERE symbol = 'BY:CLICK'")
        connection.execute("DELETE FROM ohlcv_data WHERE symbol = 'BY:CLICK'")
    both = ["--select", "tick_data,ohlcv_data", "--partition", hour.strftime("%Y-%m-%d-%H:%M")]
    dagster(filled, tmp_path / "dagster", "asset", "materialize", *both)
    assert filled.query("SELECT price FROM tick_data WHERE symbol = 'BY:CLICK'") == [(10.0,)]
    assert filled.query("SELECT close FROM ohlcv_data WHERE symbol = 'BY:CLICK'") == [(10.0,)]


def test_the_checks_find_a_wrong_bar_and_an_unknown_condition(filled: Stack, tmp_path: Path):
    filled.send(encode(trade("BY:CHECK", t=int(time.time() * 1000) - 180_000, c=["1", "x"])))
    filled.catch_up()
    with filled.connect() as connection:
        connection.execute("UPDATE ohlcv_data SET high = high + 1 WHERE symbol = 'BY:CHECK'")
    folder = tmp_path / "dagster"
    dagster(filled, folder, "job", "execute", "-j", "live_checks")
    with DagsterInstance.from_config(str(folder)) as instance:
        records = instance.get_event_records(EventRecordsFilter(DagsterEventType.ASSET_CHECK_EVALUATION))
    found = {e.check_name: e for e in (r.event_log_entry.dagster_event.event_specific_data for r in records)}
    severities = {"bars_match_ticks": "ERROR", "conditions_are_known": "WARN"}
    assert {name: (found[name].passed, found[name].severity.value) for name in severities} == {
        name: (False, severity) for name, severity in severities.items()
    }
    assert found["bars_match_ticks"].metadata["rows"].value == 1
    assert filled.command("reconcile", "--repair").returncode == 1


def test_what_the_topic_no_longer_holds_is_refused(filled: Stack):
    before = filled.query(TICKS)
    client = AdminClient({"bootstrap.servers": filled.kafka})
    for future in client.delete_records([TopicPartition("stock-ticks", 2, 5)]).values():
        future.result()
    done = filled.command("rebuild", *HOUR)
    assert done.returncode == 1
    assert "no longer holds this range; it has all records received since" in done.stderr
    assert filled.query(TICKS) == before
