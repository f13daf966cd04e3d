"""How the gRPC server starts the processes of its runs."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from stock_pipeline.local.grpc_server import fork_instead_of_spawn, preloaded
from stock_pipeline.settings import load_settings


def in_a_run(function, *arguments):
    with ProcessPoolExecutor(1, mp_context=fork_instead_of_spawn("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def test_a_run_begins_with_all_imported_and_with_the_settings_of_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    multiprocessing.set_forkserver_preload(preloaded())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SYMBOLS", raising=False)
    for symbol in ("AAPL", "MSFT"):
        (tmp_path / ".env").write_text(f"SYMBOLS={symbol}")
        assert in_a_run(load_settings).symbols == (symbol,)
    assert "stock_pipeline.defs.supervision" in in_a_run(eval, "[*__import__('sys').modules]")
