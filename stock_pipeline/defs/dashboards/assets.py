"""Grafana's dashboards as assets, downstream of what their queries read, each with a check that asks its queries."""

from dagster import (
    AssetCheckResult,
    AssetChecksDefinition,
    AssetSpec,
    Definitions,
    MetadataValue,
    asset_check,
    definitions,
)

from stock_pipeline.bars.rollups import ROLLUPS
from stock_pipeline.dashboards import DASHBOARDS, Dashboard, dashboards
from stock_pipeline.defs.dashboards.operations import OPERATIONS
from stock_pipeline.defs.quality.batches import ERROR, Rule, result
from stock_pipeline.resources.timescale import TimescaleResource
from stock_pipeline.settings import load_settings

OF_FUNCTIONS = {
    "bars": ("ohlcv_data", *(rollup.table for rollup in ROLLUPS)),
    "volatility": ("volatility_30", "volatility_60", "volatility_1440"),
    "vwap_bands": ("vwap_bands",),
}
"""The assets whose rows a SQL function gives, or whose formulas it holds."""

ASSETS = {
    "tick_data",
    "ohlcv_data",
    "instrument",
    "volatility_1m",
    *OPERATIONS,
    *(a for assets in OF_FUNCTIONS.values() for a in assets),
}

EVERY_PANEL_ANSWERS = Rule(
    "every_panel_answers",
    ERROR,
    "the reader may ask every query of the dashboard, and it gives the columns that its panel needs: else the panel "
    "shows an error. See grafana/dashboards.",
)


def dashboard_name(dashboard: Dashboard) -> str:
    return f"{dashboard.path.stem}_dashboard"


def _spec(dashboard: Dashboard) -> AssetSpec:
    url = f"http://localhost:{load_settings().grafana_port}/d/{dashboard.uid}"
    shown = {
        asset for name in dashboard.sources() for asset in OF_FUNCTIONS.get(name, [name] if name in ASSETS else [])
    }
    return AssetSpec(
        dashboard_name(dashboard),
        deps=sorted(shown),
        group_name="dashboards",
        kinds={"grafana"},
        description=f"{dashboard.description} Lies in {dashboard.path.relative_to(DASHBOARDS.parent.parent)}.",
        metadata={"grafana": MetadataValue.url(url), "panels": [panel["title"] for panel in dashboard.panels]},
    )


def _check(dashboard: Dashboard) -> AssetChecksDefinition:
    asset, rule = dashboard_name(dashboard), EVERY_PANEL_ANSWERS

    @asset_check(asset=asset, name=rule.name, description=f"ERROR: {rule.reason}")
    def check(timescale: TimescaleResource) -> AssetCheckResult:
        with timescale.connect() as connection:
            problems = [{"panel": problem.owner, "error": problem.error} for problem in dashboard.problems(connection)]
        return result(asset, rule, problems)

    return check


CHECKS = [_check(dashboard) for dashboard in dashboards()]


@definitions
def defs() -> Definitions:
    return Definitions(assets=[_spec(dashboard) for dashboard in dashboards()], asset_checks=CHECKS)
