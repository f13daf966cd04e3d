"""What `make test-faults` runs."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from stock_pipeline_tests.faults.run import run_faults


def main(
    faults: int = 100,
    seed: int = 1,
    cluster: Annotated[bool, typer.Option("--cluster", help="streams on a Spark master and two workers")] = False,
) -> None:
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        outcome = run_faults(Path(folder), faults, seed, on_cluster=cluster)
    print(outcome)
    raise typer.Exit(0 if outcome.is_as_promised else 1)


typer.run(main)
