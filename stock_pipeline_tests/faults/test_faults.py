"""A few faults of the many that `make test-faults` makes; none that lasts."""

from pathlib import Path

import pytest

from stock_pipeline_tests.faults.run import run_faults

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]


def test_five_faults_lose_double_and_falsify_nothing(tmp_path: Path):
    outcome = run_faults(tmp_path, count=5, seed=2, longest=0)
    print(outcome)
    assert outcome.is_clean, outcome
