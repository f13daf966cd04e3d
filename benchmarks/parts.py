"""The processes of each part of `stock-pipeline run`, and what they use."""

from collections.abc import Mapping
from contextlib import suppress

import psutil

from stock_pipeline_tests.faults.faults import PARTS
from stock_pipeline_tests.faults.pipeline import Pipeline


def families(pipeline: Pipeline) -> Mapping[str, list[psutil.Process]]:
    """The processes of each part; each process once."""
    seen: set[int] = set()
    found = {}
    for part in (*PARTS, "run"):
        found[part] = [process for process in pipeline.family(part) if process.pid not in seen]
        seen |= {process.pid for process in found[part]}
    return found


def used(pipeline: Pipeline) -> dict[str, float]:
    """Processor seconds of each part since it began."""
    result = {}
    for part, family in families(pipeline).items():
        result[part] = 0.0
        for process in family:
            with suppress(psutil.NoSuchProcess):
                result[part] += processor_seconds(process)
    return result


def processor_seconds(process: psutil.Process) -> float:
    """Its own and that of its children that have ended."""
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)
