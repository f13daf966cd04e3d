"""The processor time that processes use: each part of `stock-pipeline run`, and others."""

from collections.abc import Iterable
from contextlib import suppress

import psutil

from stock_pipeline_tests.faults.faults import processes_by_part
from stock_pipeline_tests.faults.pipeline import Pipeline


def used(pipeline: Pipeline) -> dict[str, float]:
    """Processor seconds of each part since it began."""
    return {part: _sum(family) for part, family in processes_by_part(pipeline).items()}


def family_seconds(pid: int) -> float:
    """Processor seconds of a process and of all that it started."""
    process = psutil.Process(pid)
    # Itself last: it counts the time of a child that ends meanwhile.
    return _sum([*process.children(recursive=True), process])


def processor_seconds(process: psutil.Process) -> float:
    """Its own and that of its children that have ended."""
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


def _sum(family: Iterable[psutil.Process]) -> float:
    total = 0.0
    for process in family:
        with suppress(psutil.NoSuchProcess):
            total += processor_seconds(process)
    return total
