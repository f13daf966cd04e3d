"""Real-time market data: trades through Kafka and Spark into TimescaleDB, orchestrated by Dagster."""

from importlib.metadata import version
from pathlib import Path

__version__ = version("stock-pipeline")

PROJECT_ROOT = Path(__file__).resolve().parents[1]
"""The checkout: sql/, spark/ and grafana/ lie here. The install is editable, so that it is always there."""
