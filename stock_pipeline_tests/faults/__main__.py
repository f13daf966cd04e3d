"""What `make test-faults` runs."""

from typing import Annotated

import typer

from stock_pipeline_tests.faults.run import own_folder, run_faults


def main(
    faults: int = 100,
    seed: int = 1,
    cluster: Annotated[bool, typer.Option("--cluster", help="streams on a Spark master and two workers")] = False,
) -> None:
    with own_folder("faults-") as folder:
        outcome = run_faults(folder, faults, seed, on_cluster=cluster)
        print(outcome)
        if not outcome.is_as_promised:
            raise typer.Exit(1)


typer.run(main)
