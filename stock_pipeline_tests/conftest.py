"""One real stack for the whole session: Kafka, TimescaleDB and Spark on free ports, in a temporary home."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from psycopg.conninfo import make_conninfo

from stock_pipeline.local.component import free_port
from stock_pipeline.settings import Settings, load_settings
from stock_pipeline_tests.feed import Feed


def eventually(condition: Callable[[], Any], patience: float = 60.0, pause: float = 0.3) -> Any:
    """The first true value of `condition`; fails when there is none in time."""
    deadline = time.monotonic() + patience
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {patience} s"
        time.sleep(pause)
    return value


@dataclass
class Stack:
    """The product as its user sees it: a command and its environment."""

    home: Path
    kafka: str
    database_port: int
    environment: Mapping[str, str] = field(repr=False)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def command(self, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run `stock-pipeline` to its end."""
        return subprocess.run(
            [sys.executable, "-m", "stock_pipeline", *arguments],
            env={**self.environment, **changes},
            cwd=self.home.parent,
            capture_output=True,
            text=True,
            timeout=240,
        )

    def start(self, *arguments: str, **changes: str) -> subprocess.Popen[str]:
        """Start `stock-pipeline` in the background; what is left at the test's end is killed."""
        process = subprocess.Popen(
            [sys.executable, "-m", "stock_pipeline", *arguments],
            env={**self.environment, **changes},
            cwd=self.home.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.started.append(process)
        return process

    def stop_started(self) -> None:
        """Ask all that was started to end, and see that it ended well."""
        for process in self.started:
            process.terminate()
        while self.started:
            process = self.started.pop()
            output, _ = process.communicate(timeout=60)
            assert process.returncode == 0, output

    def connect(self, role: str = "owner", database: str = "stocks") -> psycopg.Connection:
        password = json.loads((self.home / "credentials.json").read_text())[role]
        conninfo = f"postgresql://localhost:{self.database_port}/{database}"
        return psycopg.connect(make_conninfo(conninfo, user=f"stocks_{role}", password=password), autocommit=True)

    def query(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with self.connect() as connection:
            return connection.execute(statement, values).fetchall()

    def send(
        self,
        *values: bytes | None,
        topic: str = "stock-ticks",
        partition: int = 0,
        times: Sequence[int] | None = None,
    ) -> list[int]:
        """Write records without key straight into the topic, with their times, UNIX milliseconds; their offsets."""
        producer, offsets = Producer({"bootstrap.servers": self.kafka}), []
        # To librdkafka the time 0 is now.
        for value, time_ms in zip(values, times or [0] * len(values), strict=True):
            producer.produce(
                topic,
                value,
                partition=partition,
                timestamp=time_ms,
                on_delivery=lambda _, m: offsets.append(m.offset()),
            )
        assert producer.flush(20) == 0
        return offsets

    def records(self, topic: str) -> list[tuple[bytes, dict[str, str]]]:
        """Value and headers of every record that a topic of one partition holds."""
        consumer = Consumer({"bootstrap.servers": self.kafka, "group.id": "tests", "enable.auto.commit": False})
        place = TopicPartition(topic, 0, 0)
        consumer.assign([place])
        end = consumer.get_watermark_offsets(place, timeout=10)[1]
        found = [consumer.poll(10) for _ in range(end)]
        consumer.close()
        return [(m.value(), {name: value.decode() for name, value in m.headers() or ()}) for m in found]

    def catch_up(self, *streams: str) -> None:
        """Let the streams take in all that the topic holds."""
        for name in streams or ("tick", "ohlcv"):
            done = self.command("stream", name, "--available-now")
            assert done.returncode == 0, done.stderr


def on_free_ports(home: Path) -> Stack:
    """A copy of the product of its own; nothing is started yet."""
    kafka, database = free_port(), free_port()
    environment = {
        **os.environ,
        "STOCK_PIPELINE_HOME": str(home),
        "KAFKA_BOOTSTRAP_SERVERS": f"localhost:{kafka}",
        "DB_URL": f"jdbc:postgresql://localhost:{database}/stocks",
        "SIMULATOR_PORT": str(free_port()),
        "WEBSERVER_PORT": str(free_port()),
        "GRAFANA_PORT": str(free_port()),
        "STACK": "embedded",
    }
    return Stack(home, f"localhost:{kafka}", database, environment)


@pytest.fixture(scope="session")
def shared_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    result = on_free_ports(tmp_path_factory.mktemp("stack") / "home")
    up = result.command("up")
    assert up.returncode == 0, up.stderr
    yield result
    down = result.command("down")
    assert down.returncode == 0, down.stderr


@pytest.fixture(scope="module")
def product(shared_stack: Stack) -> Iterator[Settings]:
    """The settings of the shared stack, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in shared_stack.environment.items():
            patch.setenv(name, value)
        load_settings.cache_clear()
        yield load_settings()
    load_settings.cache_clear()


@pytest.fixture
def stack(shared_stack: Stack) -> Iterator[Stack]:
    """The session's stack; whatever a test leaves running and prints is shown and ended."""
    yield shared_stack
    _end_started(shared_stack)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Stack]:
    """A second copy on this machine, nothing of it started: another home, other ports."""
    copy = on_free_ports(tmp_path / "home")
    yield copy
    for log in sorted((copy.home / "logs").glob("*.log")):
        print(f"--- {log.name}", *log.read_text(errors="replace").splitlines()[-40:], sep="\n")
    down = copy.command("down", "--wipe")
    _end_started(copy)
    assert down.returncode == 0, down.stderr


@pytest.fixture
def feed() -> Iterator[Feed]:
    server = Feed(free_port())
    yield server
    server.close()


def _end_started(stack: Stack) -> None:
    while stack.started:
        process = stack.started.pop()
        process.kill()
        if process.stdout and not process.stdout.closed:
            print(process.communicate(timeout=10)[0])
