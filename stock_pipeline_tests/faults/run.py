"""The fault test: `stock-pipeline run` under 1,000 trades a second, and one fault after the other."""

import random
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from stock_pipeline.settings import Settings
from stock_pipeline_tests.conftest import eventually, free_port, on_free_ports
from stock_pipeline_tests.faults.clock import Clock
from stock_pipeline_tests.faults.disk import Disk
from stock_pipeline_tests.faults.faults import Fault, all_faults
from stock_pipeline_tests.faults.market import SYMBOLS, Exchange
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

PAUSE = 2.0, 8.0
"""Least and most seconds between a recovery and the next fault."""

TOKEN = "token-of-the-fault-test"


@dataclass(frozen=True)
class Outcome:
    """
    Attributes:
        leaks: places that show a secret.
        slowest: seconds of the longest recovery.
    """

    faults: int
    verdict: Verdict
    leaks: Sequence[str]
    slowest: float

    @property
    def is_clean(self) -> bool:
        """Whether all is as promised, however long it took."""
        return self.verdict.is_clean and not self.leaks

    @property
    def is_as_promised(self) -> bool:
        return self.is_clean and self.slowest <= RECOVERY

    def __str__(self) -> str:
        found = self.verdict
        lines = [f"{found}", *(f"a secret is shown in {place}" for place in self.leaks)]
        lines.append(
            f"{self.faults} faults, {found.stored + found.swallowed + found.lost} trades: {found.lost} lost, "
            f"{found.doubled} doubled, {found.wrong_bars} wrong bars, slowest recovery {self.slowest:.0f} s"
        )
        return "\n".join(lines)


def run_faults(folder: Path, count: int, seed: int, longest: float = 1_000.0) -> Outcome:
    """Make `count` faults and see what came of them.

    Args:
        folder: for the product's home; emptied by the caller.
        longest: leaves out the faults that last for more seconds.

    Raises:
        AssertionError: the pipeline does not start, or does not recover within PATIENCE.
    """
    chance = random.Random(seed)
    stack = on_free_ports(folder / "home")
    ports = free_port(), free_port()
    with ExitStack() as cleanup:
        disk, clock = Disk(folder / "home" / "checkpoints"), Clock(folder)
        cleanup.callback(disk.remove)
        cleanup.callback(stack.command, "down")
        exchange = Exchange(Settings(stock_pipeline_home=folder / "market"), RATE, *ports)
        exchange.start()
        cleanup.callback(exchange.stop)
        feed = {"FINNHUB_URL": f"ws://127.0.0.1:{ports[1]}", "FINNHUB_TOKEN": TOKEN, "SYMBOLS": ",".join(SYMBOLS)}
        pipeline = Pipeline.start(stack, **feed, **clock.environment)
        cleanup.callback(pipeline.stop)
        print(f"running after {pipeline.recovery(time.time(), START)[0]:.0f} s", flush=True)
        recoveries = _make_faults(pipeline, all_faults(pipeline, exchange, disk, clock), count, chance, longest)
        last = exchange.stop_sending()
        eventually(lambda: _is_settled(pipeline), 120)
        found = leaks(pipeline, {"token": TOKEN})
        pipeline.stop()
        assert stack.command("up").returncode == 0
        stack.catch_up()
        return Outcome(count, judge(stack, exchange, last), found, max(recoveries, default=0.0))


def _make_faults(
    pipeline: Pipeline, faults: Sequence[Fault], count: int, chance: random.Random, longest: float
) -> list[float]:
    """Seconds of each recovery."""
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
        recoveries.append(seconds)
        print(f": {seconds:.1f} s ({last})", flush=True)
    return recoveries


def _is_settled(pipeline: Pipeline) -> bool:
    """Whether nothing more is on its way."""
    spooled = pipeline.record("producer").get("figures", {}).get("spooled", 0)
    lag = [pipeline.record(name).get("figures", {}).get("lag_records", 0) for name in STREAMS]
    return not spooled and not any(lag)
