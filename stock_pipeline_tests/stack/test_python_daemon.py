"""What Spark does in Python costs little beside the work itself."""

import gc
import sys
from collections.abc import Iterator

import pandas as pd
import pytest
from pyspark.sql import SparkSession

pytestmark = pytest.mark.stack


def test_no_task_reads_archives_or_visits_what_is_imported(spark: SparkSession):
    def look(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for _ in batches:
            yield pd.DataFrame({"looked_in": list(sys.path_importer_cache), "left_alone": gc.get_freeze_count()})

    found = spark.range(1).mapInPandas(look, "looked_in string, left_alone long").toPandas()
    assert not [entry for entry in found.looked_in if ".zip" in entry or ".jar" in entry]
    assert any("site-packages" in entry for entry in found.looked_in)
    assert found.left_alone.min() > 100_000
