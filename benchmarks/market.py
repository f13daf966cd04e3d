"""The made-up trades that the benchmarks use, as arrays, as messages in a topic, and as the bars that they make.

All follows from a trade's number: `IN_A_MESSAGE` trades of one symbol stand together, the symbols take turns, and each
trade comes `1 / RATE` seconds after the one before.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pandas as pd
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from stock_pipeline.ingest.message import Trade, encode
from stock_pipeline.ingest.topics import client_settings
from stock_pipeline.settings import Settings

IN_A_MESSAGE = 8

RATE = 1_000
"""Trades a second, by their times."""

DELAY = 50
"""Milliseconds from a trade to its receipt."""


@dataclass(frozen=True)
class Market:
    """`trades` trades of `symbols` symbols, the last of them at `end_ms`, UNIX milliseconds."""

    trades: int
    symbols: int
    end_ms: int

    @property
    def begin(self) -> datetime:
        """The time of the first trade."""
        return datetime.fromtimestamp((self.end_ms - (self.trades - 1) * 1000 // RATE) / 1000, UTC)

    def frame(self) -> pd.DataFrame:
        """One row for each trade: s, p, t, v, as in a message."""
        number = np.arange(self.trades)
        return pd.DataFrame(
            {
                "s": np.char.add("BINANCE:S", (number // IN_A_MESSAGE % self.symbols).astype(str)),
                "p": 100 + number * 7919 % 10_007 / 100,
                "t": self.end_ms - (self.trades - 1 - number) * 1000 // RATE,
                "v": 1.0 + number * 104_729 % 100,
            }
        )

    def bars(self) -> pd.DataFrame:
        """Bars of one minute, by pandas; the index is timestamp and symbol."""
        frame = self.frame()
        minutes = pd.to_datetime(frame["t"] // 60_000 * 60_000, unit="ms", utc=True)
        groups = frame.groupby([minutes.rename("timestamp"), frame["s"].rename("symbol")])
        return groups.agg(
            open=("p", "first"),
            high=("p", "max"),
            low=("p", "min"),
            close=("p", "last"),
            volume=("v", "sum"),
            ticks=("p", "size"),
        )

    def ticks(self) -> pd.DataFrame:
        """Of each symbol's trades their number, and the sums of p, of p times v, and of the seconds since midnight."""
        frame = self.frame()
        frame = frame.assign(notional=frame["p"] * frame["v"], seconds=frame["t"] % 86_400_000 / 1000)
        return frame.groupby(frame["s"].rename("symbol")).agg(
            ticks=("p", "size"), prices=("p", "sum"), notional=("notional", "sum"), seconds=("seconds", "sum")
        )

    def send(self, settings: Settings, topic: str, partitions: int) -> None:
        """Create the topic and put all trades into it, keyed by symbol as the producer does."""
        client = AdminClient(client_settings(settings))
        [created] = client.create_topics([NewTopic(topic, partitions, 1)]).values()
        created.result()
        producer = Producer({**client_settings(settings), "linger.ms": 50, "compression.type": "lz4"})
        for trades in self._messages():
            value, received = encode(trades), trades[-1]["t"] + DELAY
            while True:
                try:
                    producer.produce(topic, value, trades[0]["s"].encode(), timestamp=received)
                    break
                except BufferError:
                    producer.poll(0.1)
        assert producer.flush(60) == 0

    def _messages(self) -> Iterator[list[Trade]]:
        rows = self.frame().to_dict("records")
        for begin in range(0, self.trades, IN_A_MESSAGE):
            some = rows[begin : begin + IN_A_MESSAGE]
            yield [Trade(s=row["s"], p=row["p"], t=row["t"], v=row["v"], c=None) for row in some]
