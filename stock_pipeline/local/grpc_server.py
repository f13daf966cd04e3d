"""Dagster's gRPC server, whose runs are forked from a process that has imported what they need.

    python -m stock_pipeline.local.grpc_server --module-name stock_pipeline.definitions …

takes the options of `dagster api grpc`, which starts each run in a new interpreter: seconds of a processor for imports,
with the rollups in each minute, that the streams would lack.
"""

import multiprocessing
import os
import pkgutil
from multiprocessing.context import BaseContext

from dagster._cli.api import grpc_command

from stock_pipeline import defs
from stock_pipeline.settings import load_settings

get_context = multiprocessing.get_context

# A run goes by the settings as they are when it starts.
os.register_at_fork(after_in_child=load_settings.cache_clear)


def preloaded() -> list[str]:
    """The modules that a run needs."""
    definitions = [module.name for module in pkgutil.walk_packages(defs.__path__, f"{defs.__name__}.")]
    return ["stock_pipeline.local.grpc_server", "dagster_postgres", *definitions]


def fork_instead_of_spawn(method: str | None = None) -> BaseContext:
    """`multiprocessing.get_context` for Dagster, which asks for spawn by its name and has no setting for it."""
    return get_context("forkserver" if method == "spawn" else method)


if __name__ == "__main__":
    multiprocessing.set_forkserver_preload(preloaded())
    # Its type is an overload for each method's name.
    multiprocessing.get_context = fork_instead_of_spawn  # type: ignore[assignment]
    grpc_command()
