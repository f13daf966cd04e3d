"""Spark in the tests' own process, beside the services of the shared stack."""

from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from spark.session import create_session
from stock_pipeline.settings import Settings


@pytest.fixture(scope="module")
def spark(product: Settings) -> Iterator[SparkSession]:
    session = create_session(product, "tests")
    yield session
    session.stop()
