"""Dagster's gRPC server, whose runs are forked from a process that has imported what they need.

    python -m stock_pipeline.local.grpc_server --module-name stock_pipeline.definitions …

takes the options of `dagster api grpc`, which starts each run in a new interpreter: seconds of a processor for imports,
with the rollups in each minute, that the streams would lack.
"""

import multiprocessing
import pkgutil
from multiprocessing.context import BaseContext

from dagster._cli.api import grpc_command

from stock_pipeline import defs

get_context = multiprocessing.get_context


def fork_instead_of_spawn(method: str | None = None) -> BaseContext:
    return get_context("forkserver" if method == "spawn" else method)


if __name__ == "__main__":
    definitions = [module.name for module in pkgutil.walk_packages(defs.__path__, f"{defs.__name__}.")]
    multiprocessing.set_forkserver_preload(["stock_pipeline.local.grpc_server", "dagster_postgres", *definitions])
    multiprocessing.get_context = fork_instead_of_spawn  # type: ignore[assignment]
    grpc_command()
