"""`stock-pipeline run` as the fault test sees it: its processes, and whether all of it works."""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import psutil
import psycopg

from stock_pipeline_tests.compose.containers import Containers
from stock_pipeline_tests.conftest import Stack
from stock_pipeline_tests.stack.test_run import is_supervised, record

STREAMS = ("tick-stream", "ohlcv-stream")
SERVICES = ("producer", *STREAMS)

FRESH = 5.0
"""Oldest heartbeat, in seconds, of a service that is well."""

NEWEST = """
SELECT
    (SELECT max(event_time) FROM tick_data WHERE event_time > %(since)s),
    (SELECT max(updated_at) FROM ohlcv_data WHERE timestamp >= date_trunc('minute', %(since)s::timestamptz))
"""

LOCATIONS = "{workspaceOrError{... on Workspace{locationEntries{locationOrLoadError{__typename}}}}}"

TICKED = "SELECT max(update_timestamp) FROM job_ticks"


@dataclass
class Pipeline:
    """
    Attributes:
        cluster: of Spark; none of its services runs where the streams are in local mode.
    """

    stack: Stack
    cluster: Containers
    process: subprocess.Popen[bytes]

    @classmethod
    def start(cls, stack: Stack, cluster: Containers, **changes: str) -> "Pipeline":
        log = (stack.home.parent / "run.log").open("wb")
        command = [sys.executable, "-m", "stock_pipeline", "run"]
        environment = {**stack.environment, **changes}
        process = subprocess.Popen(command, env=environment, cwd=stack.home.parent, stdout=log, stderr=log)
        return cls(stack, cluster, process)

    def record(self, name: str) -> dict[str, Any]:
        return record(self.stack, name)

    def family(self, name: str) -> list[psutil.Process]:
        """The process of a part, and all that it started."""
        process = psutil.Process(self.record(name)["pid"])
        return [process, *process.children(recursive=True)]

    def executors(self) -> list[psutil.Process]:
        workers = self.cluster.running.get("spark-worker", [])
        return [child for worker in workers for child in worker.children() if child.name() == "java"]

    def ailing(self, since: float) -> str:
        """What does not work; empty where all does and has taken in what came after `since`, UNIX seconds."""
        for name in SERVICES:
            beat = self.record(name)
            if not beat or not psutil.pid_exists(beat["pid"]) or beat["state"] != "running":
                return f"{name}: {beat.get('state', 'no heartbeat')}"
            # A service whose clock was stepped says another time.
            if abs((self.stack.home / "run" / f"{name}.json").stat().st_mtime - time.time()) > FRESH:
                return f"{name}: silent"
            if not is_supervised(self.stack, name):
                return f"{name}: no Dagster run supervises it"
        moment = datetime.fromtimestamp(since, UTC)
        try:
            with self.stack.connect() as connection:
                [(tick, bar)] = connection.execute(NEWEST, {"since": moment}).fetchall()
            with self.stack.connect(database="dagster") as connection:
                [(ticked,)] = connection.execute(TICKED).fetchall()
        except psycopg.Error as error:
            return f"database: {error}"
        if tick is None:
            return "tick_data: nothing new"
        if bar is None or bar < moment:
            return "ohlcv_data: nothing new"
        if ticked is None or ticked.replace(tzinfo=UTC) < moment:
            return "daemon: no sensor has been evaluated"
        return self._webserver_ails()

    def _webserver_ails(self) -> str:
        query = urlencode({"query": LOCATIONS})
        try:
            with urlopen(
                f"http://127.0.0.1:{self.stack.environment['WEBSERVER_PORT']}/graphql?{query}", timeout=10
            ) as a:
                [entry] = json.load(a)["data"]["workspaceOrError"]["locationEntries"]
        except (URLError, TimeoutError, ConnectionError, ValueError, KeyError) as error:
            return f"webserver: {error}"
        if entry["locationOrLoadError"]["__typename"] != "RepositoryLocation":
            return f"webserver: {entry}"
        return ""

    def recovery(self, since: float, patience: float) -> tuple[float, str]:
        """Seconds from `since` until all works, and what was the last that did not.

        Raises:
            AssertionError: it does not within `patience`.
        """
        last = ""
        while ailment := self.ailing(since):
            last = ailment
            waited = time.time() - since
            assert waited < patience, f"not recovered after {waited:.0f} s: {ailment}"
            assert self.process.poll() is None, f"run ended with {self.process.returncode}"
            time.sleep(0.5)
        return time.time() - since, last

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=180)
