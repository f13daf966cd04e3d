"""What the assets of tables and views have in common."""

from collections.abc import Mapping, Sequence
from typing import Any

from dagster import (
    DailyPartitionsDefinition,
    HourlyPartitionsDefinition,
    MetadataValue,
    TableColumn,
    TableColumnConstraints,
    TableColumnDep,
    TableColumnLineage,
    TableSchema,
)

from stock_pipeline.schema import table_columns
from stock_pipeline.settings import load_settings

HOURS = HourlyPartitionsDefinition(start_date="2026-01-01-00:00", timezone="UTC")
"""An hour of trades, by the time of the trade."""

DAYS = DailyPartitionsDefinition(start_date="2026-01-01", timezone="UTC", end_offset=1)
"""A UTC day of bars, by the bar's start; the running day is one of them."""

LAST_PRICE, RANGES, CANDLES, PRICE, VOLATILITY = 1, 2, 3, 4, 6
"""Panels of grafana/dashboards/market.json."""

PANELS = {
    "tick_data": f"viewPanel=panel-{LAST_PRICE}",
    "ohlcv_data": f"viewPanel=panel-{CANDLES}&var-interval=1m",
    "ohlcv_5m": f"viewPanel=panel-{CANDLES}&var-interval=5m",
    "ohlcv_15m": f"viewPanel=panel-{CANDLES}&var-interval=15m",
    "ohlcv_1h": f"viewPanel=panel-{CANDLES}&var-interval=1h&from=now-7d&to=now",
    "ohlcv_1d": f"viewPanel=panel-{CANDLES}&var-interval=1d&from=now-90d&to=now",
    "volatility_1m": f"viewPanel=panel-{RANGES}",
    "volatility_30": f"viewPanel=panel-{VOLATILITY}&var-window=30",
    "volatility_60": f"viewPanel=panel-{VOLATILITY}&var-window=60",
    "volatility_1440": f"viewPanel=panel-{VOLATILITY}&var-window=1440&from=now-2d&to=now",
    "vwap_bands": f"viewPanel=panel-{PRICE}",
}
"""Where Grafana shows a table or view."""

Lineage = Mapping[str, Sequence[tuple[str, str]]]
"""For each column the assets and their columns that it is made of."""


def table_metadata(table: str, columns_of: str | None = None, lineage: Lineage | None = None) -> dict[str, Any]:
    """Definition metadata: name, columns and column lineage of a table or view, and where Grafana shows it.

    Args:
        columns_of: the table that has the same columns, where sql/ makes this one like it.
    """
    settings = load_settings()
    metadata: dict[str, Any] = {
        "dagster/table_name": f"{settings.db_name}.public.{table}",
        "dagster/column_schema": _table_schema(columns_of or table),
    }
    if table in PANELS:
        metadata["grafana"] = MetadataValue.url(f"http://localhost:{settings.grafana_port}/d/market?{PANELS[table]}")
    if lineage is not None:
        deps = {
            column: [TableColumnDep(asset_key=asset, column_name=name) for asset, name in sources]
            for column, sources in lineage.items()
        }
        metadata["dagster/column_lineage"] = TableColumnLineage(deps_by_column=deps)
    return metadata


def _table_schema(table: str) -> TableSchema:
    return TableSchema(
        columns=[
            TableColumn(
                name=column.name,
                type=column.type,
                description=column.comment,
                constraints=TableColumnConstraints(nullable=column.nullable),
            )
            for column in table_columns(table)
        ]
    )
