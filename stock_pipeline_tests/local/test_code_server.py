"""The first process of a code server's container: it outlives the code server, and ends it when it is told to end."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from stock_pipeline.services.supervisor import SERVICES
from stock_pipeline_tests.conftest import eventually


def test_a_code_server_that_dies_is_started_again_and_sigterm_ends_it(tmp_path: Path):
    starts = tmp_path / "starts"
    starts.touch()
    held = tmp_path / "home" / "run"
    held.mkdir(parents=True)
    for name in SERVICES:
        (held / f"{name}.held").touch()  # a person stopped them: they are no part of this
    first = subprocess.Popen(
        [sys.executable, "-m", "stock_pipeline.local.code_server", "sh", "-c", f"echo $$ >> {starts}; exec sleep 60"],
        env={**os.environ, "STOCK_PIPELINE_HOME": str(tmp_path / "home"), "STACK": "external"},
    )
    try:
        [pid] = eventually(lambda: starts.read_text().split())
        os.kill(int(pid), signal.SIGKILL)
        _, again = eventually(lambda: (pids := starts.read_text().split())[1:] and pids)
        assert psutil.pid_exists(int(again))
        first.send_signal(signal.SIGTERM)
        assert first.wait(timeout=60) == 0
        assert not psutil.pid_exists(int(again))
    finally:
        first.kill()
