"""`python -m stock_pipeline_tests.faults [faults] [seed]`: what `make test-faults` runs."""

import sys
import tempfile
from pathlib import Path

from stock_pipeline_tests.faults.run import run_faults


def main() -> int:
    count, seed = (*map(int, sys.argv[1:]), *(100, 1)[len(sys.argv) - 1 :])
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        outcome = run_faults(Path(folder), count, seed)
    print(outcome)
    return 0 if outcome.is_as_promised else 1


sys.exit(main())
