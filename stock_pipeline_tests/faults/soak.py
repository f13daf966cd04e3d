"""A day of market time in half an hour, and what grows meanwhile.

    .venv/bin/python -m stock_pipeline_tests.faults.soak

The trades begin a day ago and come 50 times as fast as they were made, until they are nearly in the present: one that
is a minute ahead would be none. Every ten seconds the memory and the open files of every process are taken, and the
number of temporary files.
"""

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pandas as pd
import psutil

from stock_pipeline_tests.faults.faults import processes_by_part
from stock_pipeline_tests.faults.market import Numbered
from stock_pipeline_tests.faults.pipeline import Pipeline
from stock_pipeline_tests.faults.run import RATE, START, close_of_trading, own_folder, trading

DAY = 86_400.0
SPEED = 50.0

PERIOD = 10.0
"""Seconds between two samples."""

GROWTH, LEAST = 1.05, 1.0
"""By how much a mean of the last third of the time may exceed that of the second third: a factor, and what is nothing,
a megabyte or a file."""


def megabytes(process: psutil.Process) -> float:
    """Memory of this process alone: neither files nor what it shares with others, such as PostgreSQL's buffers."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"^RssAnon:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) / 1000 if found else 0.0


def sample(pipeline: Pipeline, temporary: Path) -> Iterator[tuple[tuple[str, str], float]]:
    """What there is now of each figure of each process, and of temporary files."""
    for part, processes in processes_by_part(pipeline).items():
        for process in processes:
            with suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
                name = f"{part}: {process.name()} {process.pid}"
                yield (name, "MB"), megabytes(process)
                if part != "timescaledb":
                    # Every process of PostgreSQL keeps the files that it has used open, up to max_files_per_process.
                    yield (name, "open files"), float(process.num_fds())
    for folder in (temporary, pipeline.stack.home / "spark", pipeline.stack.home / "checkpoints"):
        yield (folder.name, "files"), float(sum(len(files) for _, _, files in os.walk(folder)))


def growth(samples: pd.DataFrame) -> pd.DataFrame:
    """Mean of the second and of the last third, of every figure that was there in both all the time."""
    third = len(samples) // 3
    second, last = samples.iloc[third : 2 * third], samples.iloc[2 * third :]
    means = pd.DataFrame({"second third": second.mean(), "last third": last.mean()})
    means = means[samples.iloc[third:].notna().all()]
    return means.assign(ratio=means["last third"] / means["second third"])


def main() -> None:
    with own_folder("soak-") as folder:
        temporary = folder / "temporary"
        temporary.mkdir()
        replay = Numbered(RATE, ago=DAY, speed=SPEED)
        with trading(folder, replay, {"TMPDIR": str(temporary)}) as (exchange, pipeline):
            pipeline.recovery(time.time() - DAY, DAY + START)
            in_the_present = replay.first_due / 1000 + DAY / (SPEED - 1)
            samples = []
            while time.time() + 2 * PERIOD < in_the_present:
                samples.append(dict(sample(pipeline, temporary)))
                time.sleep(PERIOD)
            verdict, shown = close_of_trading(exchange, pipeline)
        found = growth(pd.DataFrame(samples))
        print(found.round(3).to_string())
        print(verdict, *(f"a secret is shown in {place}" for place in shown), sep="\n")
        is_flat = (found["last third"] <= GROWTH * found["second third"] + LEAST).all()
        if not verdict.is_clean or shown or not is_flat:
            sys.exit(1)


if __name__ == "__main__":
    main()
