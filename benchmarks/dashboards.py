"""What every panel of the dashboards costs at its default range of an hour, beside plain queries of raw ticks.

    .venv/bin/python -m benchmarks.dashboards [ticks]

On 100 million ticks of 50 symbols, or as many as are named; see rollups_and_checks.py for what that needs.
"""

import sys
from datetime import datetime
from statistics import median

import psycopg

from benchmarks.rollups_and_checks import fill, own_database, refresh_all, seconds
from stock_pipeline.dashboards import LAST_HOUR, as_grafana_asks, dashboards
from stock_pipeline.settings import Settings, load_settings

REPEATS = 20

SYMBOL = "BINANCE:S7"

PLAIN = {
    "Last price": "SELECT price FROM tick_data WHERE symbol = ${symbol:sqlstring} ORDER BY event_time DESC LIMIT 1",
    "1-minute price volatility": (
        "SELECT symbol, time_bucket('1 minute', event_time) AS minute, max(price) - min(price) AS volatility "
        "FROM tick_data WHERE $__timeFilter(event_time) GROUP BY 1, 2 ORDER BY volatility DESC"
    ),
    "OHLCV: $symbol, $interval": (
        'SELECT "timestamp" AS time, open, high, low, close, volume FROM ohlcv_data '
        'WHERE symbol = ${symbol:sqlstring} AND $__timeFilter("timestamp") ORDER BY 1'
    ),
    "Price: $symbol": (
        "SELECT event_time AS time, price FROM tick_data "
        "WHERE symbol = ${symbol:sqlstring} AND $__timeFilter(event_time) ORDER BY 1"
    ),
    "Volume: $symbol, $interval": (
        "SELECT time_bucket('1 minute', event_time) AS time, sum(volume) AS volume FROM tick_data "
        "WHERE symbol = ${symbol:sqlstring} AND $__timeFilter(event_time) GROUP BY 1 ORDER BY 1"
    ),
}
"""What a first dashboard asks for the same panels: ticks, where there are no rollups."""

FIGURES = """
TRUNCATE stream_stats;
INSERT INTO stream_stats
SELECT stream, ten_seconds, 10000, 1000, 0, 0, 0.2, 0.5, 0.3, 0
FROM unnest(ARRAY['tick-stream', 'ohlcv-stream']) AS stream
CROSS JOIN generate_series(now() - INTERVAL '1 day', now(), '10 seconds') AS ten_seconds
"""


def milliseconds(connection: psycopg.Connection, text: str, variables: dict[str, str], end: datetime) -> float:
    """The median, rows fetched."""
    statement = as_grafana_asks(text, end - LAST_HOUR, end, variables).encode()
    return 1000 * median(seconds(lambda: connection.execute(statement).fetchall()) for _ in range(REPEATS))


def measure(settings: Settings, end: datetime) -> dict[str, dict[str, float]]:
    """By dashboard and panel, ms of its queries together; and plain, that of the plain query where there is one.

    Args:
        settings: with a database that `fill` has filled.
        end: of the hour that is asked for, where the ticks end.
    """
    found: dict[str, dict[str, float]] = {}
    with psycopg.connect(settings.conninfo("owner"), autocommit=True) as owner:
        refresh_all(owner)
        owner.execute(FIGURES)
        owner.execute("VACUUM ANALYZE")
    with psycopg.connect(settings.conninfo("reader"), autocommit=True) as reader:
        for dashboard in dashboards():
            variables = {**dashboard.defaults, "symbol": SYMBOL}
            for query in dashboard.queries:
                figures = found.setdefault(f"{dashboard.uid}, {query.owner}", {"ms": 0.0})
                figures["ms"] += milliseconds(reader, query.text, variables, end)
                if query.owner in PLAIN:
                    figures["plain"] = milliseconds(reader, PLAIN[query.owner], variables, end)
    return found


def main() -> None:
    ticks = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000_000
    print(f"{ticks:,} ticks, median of {REPEATS} in ms\n\n| panel | ms | plain |\n|---|---|---|")
    with own_database() as owner:
        for panel, figures in measure(load_settings(), fill(owner, ticks)).items():
            plain = f"{figures['plain']:.1f}" if "plain" in figures else ""
            print(f"| {panel} | {figures['ms']:.1f} | {plain} |")


if __name__ == "__main__":
    main()
