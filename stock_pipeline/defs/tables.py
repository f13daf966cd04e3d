"""What the assets of tables have in common."""

from dagster import HourlyPartitionsDefinition, TableColumn, TableColumnConstraints, TableSchema

from stock_pipeline.schema import table_columns

HOURS = HourlyPartitionsDefinition(start_date="2026-01-01-00:00", timezone="UTC")
"""An hour of trades, by the time of the trade."""


def table_schema(table: str) -> TableSchema:
    """The column schema of a table, as sql/schema creates it."""
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
