"""The simulator keeps Finnhub's rules."""

import json
import subprocess
from collections.abc import Iterator

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from stock_pipeline.local.component import free_port
from stock_pipeline_tests.conftest import Stack, eventually

pytestmark = pytest.mark.stack


@pytest.fixture
def url(stack: Stack) -> Iterator[str]:
    port = free_port()
    process: subprocess.Popen = stack.start("simulate", "--rate", "200", "--port", str(port))

    def is_up() -> bool:
        try:
            with connect(f"ws://127.0.0.1:{port}/?token=probe"):
                return True
        except OSError:
            return False

    eventually(is_up, 20)
    yield f"ws://127.0.0.1:{port}"
    process.terminate()
    assert process.wait(timeout=20) == 0


def subscribe(connection, *symbols: str) -> None:
    for symbol in symbols:
        connection.send(json.dumps({"type": "subscribe", "symbol": symbol}))


def test_without_a_token_there_is_no_connection(url: str):
    with pytest.raises(InvalidStatus) as error:
        connect(url)
    assert error.value.response.status_code == 401


def test_only_what_is_subscribed_comes_several_trades_in_a_frame(url: str):
    with connect(f"{url}/?token=a") as connection:
        subscribe(connection, "BINANCE:BTCUSDT", "IC MARKETS:1", "AAPL")
        trades = []
        while len(trades) < 300:
            frame = json.loads(connection.recv(timeout=10))
            assert frame["type"] == "trade"
            trades += frame["data"]
        assert {trade["s"] for trade in trades} == {"BINANCE:BTCUSDT", "IC MARKETS:1", "AAPL"}
        assert {trade["v"] for trade in trades if trade["s"] == "IC MARKETS:1"} == {0.0}
        assert all(trade["c"] for trade in trades if trade["s"] == "AAPL")
        connection.send(json.dumps({"type": "unsubscribe", "symbol": "BINANCE:BTCUSDT"}))
        for _ in range(20):
            connection.recv(timeout=10)
        later = [trade["s"] for _ in range(5) for trade in json.loads(connection.recv(timeout=10))["data"]]
        assert "BINANCE:BTCUSDT" not in later


def test_a_second_connection_with_one_token_drops_both(url: str):
    with connect(f"{url}/?token=same") as first, connect(f"{url}/?token=same") as second:
        for connection in (first, second):
            with pytest.raises(ConnectionClosed):
                connection.recv(timeout=10)


def test_more_symbols_than_the_plan_allows_are_refused(url: str):
    with connect(f"{url}/?token=b") as connection:
        subscribe(connection, *(f"S{number}" for number in range(51)))
        message = json.loads(connection.recv(timeout=10))
        assert message["type"] == "error"
        assert "S50" in message["msg"]


@pytest.mark.parametrize("text", ["{", "[]", '{"type":"subscribe"}', '{"type":"x","symbol":"A"}'])
def test_a_wrong_message_gets_an_error(url: str, text: str):
    with connect(f"{url}/?token=c") as connection:
        connection.send(text)
        assert json.loads(connection.recv(timeout=10))["type"] == "error"


@pytest.mark.parametrize(
    ("content", "named"),
    [("s,t,p\n", "columns v"), ("s,t,p,v\nA,x,1,1\n", "line 2"), ("s,t,p,v\n", "no trade")],
)
def test_a_wrong_file_is_named(stack: Stack, tmp_path, content: str, named: str):
    path = tmp_path / "trades.csv"
    path.write_text(content)
    done = stack.command("simulate", "--trades", str(path))
    assert done.returncode == 1
    assert named in done.stderr
