"""The command `stock-pipeline`."""

import json
import logging
import sys
from collections.abc import Callable
from enum import StrEnum
from functools import wraps
from itertools import islice
from pathlib import Path
from typing import Annotated, ParamSpec

import psycopg
import typer
from confluent_kafka import KafkaException
from rich.console import Console
from rich.table import Table

from stock_pipeline import __version__
from stock_pipeline.errors import StockPipelineError
from stock_pipeline.logs import configure_logging
from stock_pipeline.settings import Settings, load_settings

P = ParamSpec("P")

app = typer.Typer(
    help="Trades from Finnhub through Kafka and Spark into TimescaleDB, kept running by Dagster.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
console = Console()

log = logging.getLogger(__name__)


class Stream(StrEnum):
    TICK = "tick"
    OHLCV = "ohlcv"


def command(function: Callable[P, None]) -> Callable[P, None]:
    """Make a function a command: what a person can mend is printed without a traceback, with exit code 1."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            configure_logging(load_settings().secrets())
            function(*args, **kwargs)
        except StockPipelineError as error:
            print(f"stock-pipeline: {error}", file=sys.stderr)
            raise typer.Exit(1) from None
        except psycopg.OperationalError as error:
            print(f"stock-pipeline: database {load_settings().db_url} (db_url): {error}", file=sys.stderr)
            raise typer.Exit(1) from None
        except KafkaException as error:
            servers = load_settings().kafka_bootstrap_servers
            print(f"stock-pipeline: Kafka at {servers} (kafka_bootstrap_servers): {error}", file=sys.stderr)
            raise typer.Exit(1) from None
        except (KeyboardInterrupt, BrokenPipeError):
            raise typer.Exit(130) from None

    return app.command(function.__name__.replace("_", "-"))(run)


@command
def run() -> None:
    """Run everything in the foreground: stack, tables, Dagster, services; the simulator where no token is set."""
    from stock_pipeline.local.run import run_everything

    run_everything(load_settings())


@command
def up(embedded: Annotated[bool, typer.Option(help="whatever the setting `stack` says")] = False) -> None:
    """Start Kafka and TimescaleDB in the background, or all containers; create topics and tables."""
    from stock_pipeline.local import docker, stack

    settings = _embedded(load_settings()) if embedded else load_settings()
    if settings.stack == "docker":
        docker.up(settings)
    elif settings.stack == "external":
        stack.create_topics_and_tables(settings)
        print(f"topic {settings.kafka_topic} and database {settings.db_name} are ready")
    else:
        started = stack.up(settings)
        for part in stack.components(settings):
            host, port = part.address
            print(f"{part.name} is up{'' if started[part.name] else ' already'} at {host}:{port}")


@command
def down(wipe: Annotated[bool, typer.Option("--wipe", help="delete all data")] = False) -> None:
    """Stop everything of this home: `run`, services, Kafka, TimescaleDB; or all containers."""
    from stock_pipeline.local import docker, stack

    settings = load_settings()
    if settings.stack == "docker":
        return docker.down(settings, wipe)
    stopped = stack.down(_embedded(settings), wipe)
    print(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")
    if wipe:
        print(f"deleted {settings.home}")


@command
def status(as_json: Annotated[bool, typer.Option("--json", help="a list of objects")] = False) -> None:
    """Show state, address, version and process id of each part; of containers, what Docker says."""
    from stock_pipeline.local import docker, stack

    settings = load_settings()
    if settings.stack == "docker":
        return docker.status(settings, as_json)
    lines = list(stack.status(settings))
    if as_json:
        print(json.dumps([line.model_dump() for line in lines], indent=2))
        return
    table = Table("name", "state", "address", "version", "pid", box=None)
    for line in lines:
        table.add_row(line.name, line.state, line.address, line.version, str(line.pid or ""))
    console.print(table)


@command
def logs(name: str, lines: Annotated[int, typer.Option(min=1, help="how many of the last lines")] = 50) -> None:
    """Print the end of a log: kafka, timescaledb, producer, tick-stream, …"""
    from stock_pipeline.local import docker
    from stock_pipeline.services.processes import last_lines

    settings = load_settings()
    if settings.stack == "docker":
        return docker.logs(settings, name, lines)
    folder = settings.home / "logs"
    known = sorted(path.stem for path in folder.glob("*.log"))
    if name not in known:
        raise StockPipelineError(f"no log of {name!r} in {folder}; there are: {', '.join(known) or 'none'}")
    print(last_lines(folder / f"{name}.log", lines))


@command
def init_db() -> None:
    """Bring the database to the state of sql/: roles, tables, rights."""
    from stock_pipeline.database import init_db as apply

    apply(load_settings())
    print(f"database {load_settings().db_name} is ready")


@command
def simulate(
    trades: Annotated[Path | None, typer.Option(help="CSV or CSV.gz with s,t,p,v and optionally c, arrived_ms")] = None,
    rate: Annotated[float | None, typer.Option(min=0.001, help="trades a second")] = None,
    speed: Annotated[float, typer.Option(min=0.001, help="times as fast as recorded")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="end after one replay")] = False,
    original_times: Annotated[bool, typer.Option("--original-times", help="do not move times to now")] = False,
    host: Annotated[str, typer.Option(help="0.0.0.0: for other machines, too")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="default: simulator_port")] = None,
) -> None:
    """Serve recorded trades by Finnhub's WebSocket protocol."""
    from stock_pipeline.ingest import simulator

    settings = load_settings()
    recorded = simulator.read_trades(trades or simulator.RECORDING)
    replay = simulator.Replay(
        trades=recorded if trades else simulator.with_companions(recorded),
        rate=rate,
        speed=speed,
        once=once,
        original_times=original_times,
    )
    simulator.simulate(settings, replay, host, port or settings.simulator_port)


@command
def produce() -> None:
    """Take trades from the WebSocket to Kafka, until stopped."""
    from stock_pipeline.ingest.producer import produce as work

    work(load_settings())


@command
def consume(
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="all that the topic holds")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="how many messages")] = None,
) -> None:
    """Print the messages of the topic as JSON lines."""
    from stock_pipeline.ingest.consumer import consume as messages

    for message in islice(messages(load_settings(), from_beginning), limit):
        print(json.dumps(message), flush=True)


@command
def stream(
    name: Stream,
    available_now: Annotated[bool, typer.Option("--available-now", help="all that the topic holds, then end")] = False,
) -> None:
    """Run one Spark stream in the foreground."""
    from spark.ohlcv_streaming import OHLCV_STREAM
    from spark.stream import run_stream
    from spark.tick_streaming import TICK_STREAM

    run_stream({Stream.TICK: TICK_STREAM, Stream.OHLCV: OHLCV_STREAM}[name], load_settings(), available_now)


@command
def reconcile(
    begin: Annotated[str | None, typer.Option("--from", help="default: the first trade")] = None,
    end: Annotated[str | None, typer.Option("--to", help="default: now")] = None,
    repair: Annotated[bool, typer.Option("--repair", help="make the bars what their ticks make them")] = False,
) -> None:
    """Compare bars with their ticks; print those that differ as JSON lines, exit 1 if any."""
    from stock_pipeline.bars import reconciliation

    settings = load_settings()
    with psycopg.connect(settings.conninfo("writer"), autocommit=True) as connection:
        minutes = reconciliation.named_range(begin, end)
        differ = 0
        for difference in reconciliation.reconcile(connection, settings, *minutes):
            differ += 1
            print(json.dumps(difference, default=str), flush=True)
            if repair:
                reconciliation.repair(connection, settings, difference)
        waiting = reconciliation.count_waiting(connection)
    verdict = f"{differ} {'repaired' if repair else 'differ'}" if differ else "every bar is what its ticks make it"
    left_out = f"; {waiting} late minutes wait for both streams" if waiting else ""
    print(f"stock-pipeline: {verdict}{left_out}", file=sys.stderr)
    if differ:
        raise typer.Exit(1)


@command
def rebuild(
    begin: Annotated[str, typer.Option("--from", help="ISO 8601, UTC without an offset")],
    end: Annotated[str, typer.Option("--to", help="the first moment after the range")],
    symbol: Annotated[str | None, typer.Option(help="default: all")] = None,
) -> None:
    """Build ticks and bars of a range again from the Kafka topic, and put them in the place of what is there."""
    from spark.rebuild import rebuild as build_again
    from spark.session import create_session
    from stock_pipeline.bars.minutes import parse_time, whole_minutes

    settings = load_settings()
    minutes = whole_minutes(parse_time("--from", begin), parse_time("--to", end))
    spark = create_session(settings, "rebuild")
    spark.sparkContext.setLogLevel("ERROR")
    try:
        done = build_again(spark, settings, *minutes, symbol)
    finally:
        spark.stop()
    print(f"{done.ticks} ticks and {done.bars} bars from {done.begin} to {done.end}; {done.changed} bars changed")


@app.callback(invoke_without_command=True)
def _main(version: Annotated[bool, typer.Option("--version", help="print the version")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def _embedded(settings: Settings) -> Settings:
    return settings.model_copy(update={"stack": "embedded"})
