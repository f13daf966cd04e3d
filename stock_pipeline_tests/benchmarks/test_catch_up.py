import pandas as pd
import pytest

from benchmarks.catch_up import differing


@pytest.mark.parametrize(
    ("found", "rows"),
    [
        ({"A": 1.0, "B": 2.0}, 0),
        ({"A": 1.0, "B": 2.0 + 1e-8}, 1),
        ({"A": 1.0}, 1),
        ({"A": 1.0, "B": 2.0, "C": 3.0}, 1),
        ({}, 2),
    ],
    ids=["equal", "another value", "one lacks", "one too many", "none"],
)
def test_differing(found: dict[str, float], rows: int) -> None:
    expected = pd.DataFrame({"close": {"A": 1.0, "B": 2.0}})
    assert differing(pd.DataFrame({"close": found}, dtype=object), expected) == rows
