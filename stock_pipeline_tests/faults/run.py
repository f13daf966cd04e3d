"""The fault test: `stock-pipeline run` under 1,000 trades a second, and one fault after the other."""

import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from stock_pipeline.local.component import free_port
from stock_pipeline.settings import Settings
from stock_pipeline_tests.compose.containers import Containers
from stock_pipeline_tests.conftest import eventually, on_free_ports
from stock_pipeline_tests.faults.clock import Clock
from stock_pipeline_tests.faults.disk import Disk
from stock_pipeline_tests.faults.faults import Fault, all_faults
from stock_pipeline_tests.faults.market import SYMBOLS, Exchange, Numbered
from stock_pipeline_tests.faults.pipeline import STREAMS, Pipeline
from stock_pipeline_tests.faults.secrets import leaks
from stock_pipeline_tests.faults.verdict import Verdict, judge

RATE = 1_000.0
"""Trades a second."""

RECOVERY = 60.0
"""Seconds from the end of a fault within which all must work again."""

PATIENCE = 300.0
"""Seconds after which a recovery is given up, and the test with it."""

START = 300.0
"""Seconds that the first start may take, with nothing installed but the packages."""

SETTLING = 120.0
"""Seconds within which the last trade has to arrive."""

PAUSE = 2.0, 8.0
"""Least and most seconds between a recovery and the next fault."""

TOKEN = "token-of-the-fault-test"


@dataclass(frozen=True)
class Outcome:
    """
    Attributes:
        recoveries: of each fault its name and the seconds from its end until all worked again.
        leaks: places that show a secret.
    """

    recoveries: Sequence[tuple[str, float]]
    verdict: Verdict
    leaks: Sequence[str]

    @property
    def slowest(self) -> float:
        return max((seconds for _, seconds in self.recoveries), default=0.0)

    @property
    def is_clean(self) -> bool:
        """Whether all is as promised, however long it took."""
        return self.verdict.is_clean and not self.leaks

    @property
    def is_as_promised(self) -> bool:
        return self.is_clean and self.slowest <= RECOVERY

    def __str__(self) -> str:
        found = self.verdict
        seconds = pd.DataFrame(self.recoveries, columns=["fault", "seconds"]).groupby("fault")["seconds"]
        lines = [seconds.agg(["count", "median", "max"]).to_string(float_format="%.0f"), f"{found}"]
        lines += [f"a secret is shown in {place}" for place in self.leaks]
        lines.append(
            f"{len(self.recoveries)} faults, {found.stored + found.swallowed + found.lost} trades: {found.lost} lost, "
            f"{found.doubled} doubled, {found.wrong_bars} wrong bars, slowest recovery {self.slowest:.0f} s"
        )
        return "\n".join(lines)


@contextmanager
def own_folder(prefix: str) -> Iterator[Path]:
    """A new folder, deleted at the end; where an error ended the work it stays, with its logs and data."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield folder
    except BaseException:
        print(f"logs and data are in {folder}", flush=True)
        raise
    shutil.rmtree(folder)


@contextmanager
def trading(
    folder: Path, replay: Numbered, environment: Mapping[str, str], on_cluster: bool = False
) -> Iterator[tuple[Exchange, Pipeline]]:
    """`run`, and the exchange that it gets its trades from.

    Args:
        folder: for the product's home; emptied by the caller.
        on_cluster: the streams run on a Spark master and two workers.
    """
    stack = on_free_ports(folder / "home")
    ports = free_port(), free_port()
    exchange = Exchange(Settings(stock_pipeline_home=folder / "market"), replay, *ports)
    feed = {"FINNHUB_URL": f"ws://127.0.0.1:{ports[1]}", "FINNHUB_TOKEN": TOKEN, "SYMBOLS": ",".join(SYMBOLS)}
    with ExitStack() as cleanup:
        cleanup.callback(stack.command, "down")
        exchange.start()
        cleanup.callback(exchange.stop)
        cluster = Containers(stack, folder / "containers")
        cleanup.callback(cluster.kill)
        spark = cluster.start_cluster() if on_cluster else {}
        pipeline = Pipeline.start(stack, cluster, **feed, **spark, **environment)
        cleanup.callback(pipeline.stop)
        yield exchange, pipeline


def close_of_trading(exchange: Exchange, pipeline: Pipeline) -> tuple[Verdict, Sequence[str]]:
    """What became of all trades, and where a secret is shown."""
    last = exchange.stop_sending()
    eventually(lambda: _is_settled(pipeline), SETTLING)
    found = leaks(pipeline, {"token": TOKEN})
    pipeline.stop()
    assert pipeline.stack.command("up").returncode == 0
    pipeline.stack.catch_up()
    return judge(pipeline.stack, exchange, last), found


def run_faults(folder: Path, count: int, seed: int, longest: float = 1_000.0, on_cluster: bool = False) -> Outcome:
    """Make `count` faults and see what came of them.

    Args:
        folder: for the product's home; emptied by the caller.
        longest: leaves out the faults that last for more seconds.
        on_cluster: the streams run on a Spark master and two workers, and executors are among what dies.

    Raises:
        AssertionError: the pipeline does not start, or does not recover within PATIENCE.
    """
    chance = random.Random(seed)
    with ExitStack() as cleanup:
        disk, clock = Disk(folder / "home" / "checkpoints"), Clock(folder)
        cleanup.callback(disk.remove)
        market = trading(folder, Numbered(RATE), clock.environment, on_cluster)
        exchange, pipeline = cleanup.enter_context(market)
        print(f"running after {pipeline.recovery(time.time(), START)[0]:.0f} s", flush=True)
        recoveries = _make_faults(pipeline, all_faults(pipeline, exchange, disk, clock), count, chance, longest)
        return Outcome(recoveries, *close_of_trading(exchange, pipeline))


def _make_faults(
    pipeline: Pipeline, faults: Sequence[Fault], count: int, chance: random.Random, longest: float
) -> list[tuple[str, float]]:
    """Of each fault its name and the seconds of the recovery."""
    made: Counter[str] = Counter()
    recoveries = []
    for number in range(1, count + 1):
        time.sleep(chance.uniform(*PAUSE))
        possible = [f for f in faults if f.seconds <= longest and made[f.group or f.name] < f.most]
        fault = chance.choice(possible)
        made[fault.group or fault.name] += 1
        print(f"{time.strftime('%H:%M:%S')} {number:3} {fault.name}", end="", flush=True)
        fault.make(chance)
        seconds, last = pipeline.recovery(time.time(), PATIENCE)
        recoveries.append((fault.name, seconds))
        print(f": {seconds:.1f} s ({last})", flush=True)
    return recoveries


def _is_settled(pipeline: Pipeline) -> bool:
    """Whether nothing more is on its way."""
    spooled = pipeline.record("producer").get("figures", {}).get("spooled", 0)
    lag = [pipeline.record(name).get("figures", {}).get("lag_records", 0) for name in STREAMS]
    return not spooled and not any(lag)
