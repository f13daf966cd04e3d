"""A checkpoint that Spark cannot read is dropped, and the stream goes on from what it had committed."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from stock_pipeline_tests.conftest import Stack
from stock_pipeline_tests.messages import encode, trade

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]


def newest(folder: Path) -> Path:
    return max((path for path in folder.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))


def damage_offsets(checkpoint: Path) -> None:
    newest(checkpoint / "offsets").write_text("v1\n{")


def damage_metadata(checkpoint: Path) -> None:
    (checkpoint / "metadata").write_bytes(b"\x00" * 20)


def damage_state(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint / "state")


@pytest.mark.parametrize(("of_ticks", "of_bars"), [(damage_offsets, damage_metadata), (damage_metadata, damage_state)])
def test_a_stream_outlives_the_damage(stack: Stack, of_ticks: Callable[[Path], None], of_bars: Callable[[Path], None]):
    symbol = f"DAMAGED:{of_bars.__name__.upper()}"
    stack.send(encode(trade(symbol, v=1.0), trade(symbol, v=2.0)))
    stack.catch_up()
    checkpoints = stack.home / "checkpoints"
    # Hadoop's checksums would only show the same damage in another way.
    for path in checkpoints.rglob(".*.crc"):
        path.unlink()
    of_ticks(checkpoints / "tick-stream")
    of_bars(checkpoints / "ohlcv-stream")
    stack.send(encode(trade(symbol, v=4.0)))
    for name in ("tick", "ohlcv"):
        done = stack.command("stream", name, "--available-now")
        assert done.returncode == 0, done.stderr
        assert "going on without its checkpoint: no batch succeeded with it" in done.stderr
    assert stack.query("SELECT count(*), sum(volume) FROM tick_data WHERE symbol = %s", symbol) == [(3, 7.0)]
    bars = stack.query("SELECT sum(ticks)::int, sum(volume) FROM ohlcv_data WHERE symbol = %s", symbol)
    assert bars == [(3, 7.0)]
    assert stack.command("reconcile").returncode == 0
