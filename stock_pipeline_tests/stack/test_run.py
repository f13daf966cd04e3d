"""`stock-pipeline run`: bars come, what dies comes back, Ctrl-C leaves nothing, and the next run goes on."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

import psutil
import psycopg
import pytest

from stock_pipeline.local.grafana import grafana_command
from stock_pipeline.settings import load_settings
from stock_pipeline_tests.conftest import Stack, eventually
from stock_pipeline_tests.grafana.server import ask, is_healthy

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]


def record(stack: Stack, name: str) -> dict:
    path = stack.home / "run" / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def is_running(stack: Stack, name: str) -> bool:
    found = record(stack, name)
    return bool(found) and psutil.pid_exists(found["pid"]) and found["state"] == "running"


def bars_since(stack: Stack, began: float) -> int:
    try:
        return stack.query("SELECT count(*) FROM ohlcv_data WHERE updated_at > to_timestamp(%s)", began)[0][0]
    except (FileNotFoundError, psycopg.OperationalError, psycopg.errors.UndefinedTable):
        return 0  # no password, no server or no table yet


def first_bar(stack: Stack, began: float) -> None:
    eventually(lambda: bars_since(stack, began), 300)


def is_supervised(stack: Stack, name: str) -> bool:
    """Whether a Dagster run holds the supervisor's lock."""
    taken = subprocess.run(["flock", "--nonblock", stack.home / "run" / f"{name}-supervisor.lock", "true"])
    return taken.returncode != 0


def holders(path: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if any(file.path == str(path) for file in process.open_files()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def forked_runs(lock: Path) -> list[psutil.Process]:
    """The run that holds a supervisor's lock; Dagster's code server looks at it, too."""
    return [process for process in holders(lock) if "multiprocessing.forkserver" in " ".join(process.cmdline())]


WRONG_BARS = """
SELECT coalesce(bar.symbol, tick.symbol), coalesce(bar.timestamp, tick.minute), bar.ticks, tick.ticks
FROM ohlcv_data AS bar
FULL JOIN (
    SELECT
        date_trunc('minute', event_time) AS minute,
        symbol,
        max(price) AS high,
        min(price) AS low,
        count(*) AS ticks,
        sum(volume) AS volume
    FROM tick_data
    GROUP BY 1, 2
) AS tick ON tick.minute = bar.timestamp AND tick.symbol = bar.symbol
WHERE
    coalesce(bar.symbol, tick.symbol) LIKE '%%:%%'
    AND (
        (bar.ticks, bar.high, bar.low) IS DISTINCT FROM (tick.ticks, tick.high, tick.low)
        OR abs(bar.volume - tick.volume) > 1e-9 * tick.volume
    )
"""


def interrupt(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 0


def test_run_recovers_stops_and_goes_on(own: Stack):
    began = time.time()
    run = own.start("run")
    first_bar(own, began)
    print(f"first bar after {time.time() - began:.0f} s")

    # Dagster shows the project and supervises all three services.
    eventually(lambda: all(is_supervised(own, name) for name in ("producer", "tick-stream", "ohlcv-stream")), 120)
    print(f"supervised after {time.time() - began:.0f} s")
    query = urlencode({"query": "{workspaceOrError{... on Workspace{locationEntries{name}}}}"})
    with urlopen(f"http://localhost:{own.environment['WEBSERVER_PORT']}/graphql?{query}", timeout=10) as answer:
        assert json.load(answer)["data"]["workspaceOrError"]["locationEntries"] == [{"name": "stock_pipeline"}]

    if grafana_command(load_settings()) is not None:
        grafana = f"http://localhost:{own.environment['GRAFANA_PORT']}"
        eventually(lambda: is_healthy(grafana))
        assert ask(f"{grafana}/api/dashboards/uid/market")["dashboard"]["title"] == "Market"

    # The producer says what it subscribes to, so that the alert on the feed knows which markets matter.
    eventually(lambda: ("24/7",) in own.query("SELECT calendar FROM feed_silence"))

    # A killed service is back without a person.
    for name in ("producer", "tick-stream"):
        pid = record(own, name)["pid"]
        os.kill(pid, signal.SIGKILL)
        since = time.time()
        eventually(lambda name=name, pid=pid: is_running(own, name) and record(own, name)["pid"] != pid, 120)
        print(f"{name} back after {time.time() - since:.0f} s")

    # A killed Dagster run does not touch the service, and another one takes over.
    pid = record(own, "producer")["pid"]
    lock = own.home / "run" / "producer-supervisor.lock"
    eventually(lambda: is_supervised(own, "producer"), 60)
    for process in holders(lock):
        process.kill()
    eventually(lambda: not is_supervised(own, "producer"), 10)
    eventually(lambda: is_supervised(own, "producer"), 90)
    assert record(own, "producer")["pid"] == pid

    # Where the process dies that runs are forked from, Dagster takes its runs for dead: they give way to new ones.
    [run_before] = forked_runs(lock)
    run_before.parent().kill()
    killed = time.time()
    eventually(lambda: [run.pid for run in forked_runs(lock)] not in ([], [run_before.pid]), 150)
    print(f"supervised again after {time.time() - killed:.0f} s")
    assert record(own, "producer")["pid"] == pid

    # What it had unpacked is gone: a JVM has its temporary files where the next start deletes them.
    [library] = eventually(lambda: [*(own.home / "spark" / "tick-stream").glob("liblz4*.so")])
    assert library.stat().st_mtime > since

    interrupt(run)
    assert not [p.pid for p in psutil.process_iter(["cmdline"]) if str(own.home) in " ".join(p.info["cmdline"] or ())]

    began = time.time()
    again = own.start("run")
    first_bar(own, began)
    interrupt(again)

    assert own.command("up").returncode == 0
    own.catch_up()
    # Where every trade counts, as in crypto and forex; and the stocks by the rules of their conditions.
    assert own.query(WRONG_BARS) == []
    reconciled = own.command("reconcile")
    assert reconciled.returncode == 0, reconciled.stdout
    # Each trade was stored once: no two share a place in the log.
    assert own.query("SELECT count(*) > 0, count(*) = count(DISTINCT seq) FROM tick_data") == [(True, True)]
