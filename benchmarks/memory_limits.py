"""What the containers of docker-compose.yml need, beside their memory limits.

    .venv/bin/python -m benchmarks.memory_limits [minutes]

The file's services run as processes of this machine, with simulated trades; an hour, by default. Counted is what the
kernel cannot give away, memory that is no file's, a page that several processes share once.
"""

import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import psutil
import pytest

from stock_pipeline_tests.compose.containers import Containers
from stock_pipeline_tests.compose.whole_file import start_all
from stock_pipeline_tests.conftest import Stack, on_free_ports
from stock_pipeline_tests.faults.soak import growth
from stock_pipeline_tests.stack.test_run import record

PERIOD = 10.0
"""Seconds between two looks."""

EMBEDDED = ("kafka", "timescaledb")


def megabytes(process: psutil.Process) -> float:
    try:
        status = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(found) for found in re.findall(r"^Pss_(?:Anon|Shmem):\s+(\d+) kB", status, re.MULTILINE)) / 1000


def in_containers(stack: Stack, containers: Containers) -> Iterator[tuple[str, float]]:
    """For each container what its processes hold now, in megabytes."""
    roots = [
        (f"{name}-{number}", process)
        for name, group in containers.running.items()
        for number, process in enumerate(group, 1)
    ]
    roots += [(f"{name}-1", psutil.Process(record(stack, name)["pid"])) for name in EMBEDDED]
    for name, root in roots:
        if root.is_running():
            yield name, sum(map(megabytes, [root, *root.children(recursive=True)]))


def main() -> None:
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    samples = []
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as monkeypatch:
        stack = on_free_ports(Path(folder) / "home")
        containers = Containers(stack, Path(folder) / "containers")
        try:
            start_all(containers, monkeypatch)
            deadline = time.monotonic() + minutes * 60
            while time.monotonic() < deadline:
                samples.append(dict(in_containers(stack, containers)))
                time.sleep(PERIOD)
        finally:
            containers.kill()
            assert stack.command("down", "--wipe").returncode == 0
    limits = {name: service.get("mem_limit") for name, service in containers.services().items()}
    held = pd.DataFrame(samples)
    found = growth(held).assign(most=held.max())
    found["limit"] = [limits[name.rpartition("-")[0]] for name in found.index]
    print("MB", found.round(2).to_string(), sep="\n")


if __name__ == "__main__":
    main()
