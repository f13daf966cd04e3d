"""The streams on a Spark cluster, a master and two workers, and through spark-submit."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyspark
import pytest

from stock_pipeline.local.component import free_port
from stock_pipeline.local.downloads import jars
from stock_pipeline_tests.conftest import Stack, eventually
from stock_pipeline_tests.messages import encode, trade

pytestmark = pytest.mark.stack

PROJECT = Path(__file__).parents[2]
SPARK_HOME = Path(pyspark.__file__).parent


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a master with two workers of one core each, started from the installed pyspark."""
    folder, port = tmp_path_factory.mktemp("cluster"), free_port()
    address = f"spark://127.0.0.1:{port}"
    program = f"{SPARK_HOME / 'bin' / 'spark-class'} org.apache.spark.deploy"
    commands = [f"{program}.master.Master --host 127.0.0.1 --port {port} --webui-port 0"]
    for name in ("first", "second"):
        options = f"--host 127.0.0.1 --cores 1 --memory 1g --webui-port 0 --work-dir {folder / name}"
        commands.append(f"{program}.worker.Worker {options} {address}")
    environment = {**os.environ, "SPARK_HOME": str(SPARK_HOME), "SPARK_LOCAL_IP": "127.0.0.1"}
    with (folder / "log").open("w") as log:
        daemons = [psutil.Popen(command.split(), env=environment, stdout=log, stderr=log) for command in commands]
    try:
        eventually(lambda: (folder / "log").read_text().count("Successfully registered with master") == 2, 60)
        yield address
    finally:
        for daemon in daemons:
            daemon.terminate()
        psutil.wait_procs(daemons, timeout=20)


def send_trades(stack: Stack, symbol: str, count: int) -> None:
    for number in range(count):
        stack.send(encode(trade(symbol, p=10.0 + number)), partition=number % 4)


def test_streams_run_on_a_cluster_by_command_and_by_spark_submit(stack: Stack, cluster: str):
    send_trades(stack, "CLUSTER", 24)
    done = stack.command("stream", "tick", "--available-now", SPARK_MASTER=cluster)
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [
            SPARK_HOME / "bin" / "spark-submit",
            f"--master={cluster}",
            f"--driver-class-path={jars() / 'spark'}/*",
            PROJECT / "spark" / "ohlcv_streaming.py",
            "--available-now",
        ],
        env={**stack.environment, "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    assert stack.query("SELECT count(*) FROM tick_data WHERE symbol = 'CLUSTER'") == [(24,)]
    assert stack.query("SELECT sum(ticks)::int, max(high) FROM ohlcv_data WHERE symbol = 'CLUSTER'") == [(24, 33.0)]
