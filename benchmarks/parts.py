"""The processor time that each part of `stock-pipeline run` uses."""

from contextlib import suppress

import psutil

from stock_pipeline_tests.faults.faults import processes_by_part
from stock_pipeline_tests.faults.pipeline import Pipeline


def used(pipeline: Pipeline) -> dict[str, float]:
    """Processor seconds of each part since it began."""
    result = {}
    for part, family in processes_by_part(pipeline).items():
        result[part] = 0.0
        for process in family:
            with suppress(psutil.NoSuchProcess):
                result[part] += processor_seconds(process)
    return result


def processor_seconds(process: psutil.Process) -> float:
    """Its own and that of its children that have ended."""
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)
