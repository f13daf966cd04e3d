"""PySpark's daemon, which forks the Python workers, made ready so that a task costs little beside its own work.

Around each task a worker has importlib forget what it knows of the path, upon which zipimport reads the directory of
every archive on it again, and collects garbage among all that was imported. Together that is 0.15 s of processor time,
twenty times what a task of a stream works.
"""

import gc
import runpy
import sys
from importlib import import_module


def leave_archives_out() -> None:
    """Take what Spark puts before everything else off the path: PySpark, py4j and spark-core, each as an archive.

    The interpreter of the workers has PySpark installed. Files that `--py-files` brings come later, with each task.
    """
    sys.path[:] = [entry for entry in sys.path if not entry.endswith((".zip", ".jar"))]
    for entry in [entry for entry in sys.path_importer_cache if entry not in sys.path]:
        del sys.path_importer_cache[entry]


def import_once() -> None:
    """Import what the sinks need before the workers are forked, and have the garbage collector leave it alone."""
    for module in ("pyspark.worker", "spark.sinks"):
        import_module(module)
    # Loads what Numba has compiled.
    import_module("spark.decoding").decode(import_module("pyarrow").array([], "binary"))
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    leave_archives_out()
    import_once()
    runpy.run_module("pyspark.daemon", run_name="__main__", alter_sys=True)
