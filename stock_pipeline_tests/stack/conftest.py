"""Spark in the tests' own process, beside the services of the shared stack."""

from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from spark.session import create_session
from stock_pipeline.settings import Settings, load_settings
from stock_pipeline_tests.conftest import Stack


@pytest.fixture(scope="module")
def product(shared_stack: Stack) -> Iterator[Settings]:
    """The settings of the shared stack, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in shared_stack.environment.items():
            patch.setenv(name, value)
        load_settings.cache_clear()
        yield load_settings()
    load_settings.cache_clear()


@pytest.fixture(scope="module")
def spark(product: Settings) -> Iterator[SparkSession]:
    session = create_session(product, "tests")
    yield session
    session.stop()
