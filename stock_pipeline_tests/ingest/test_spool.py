"""What the spool keeps, and when it takes no more."""

import subprocess
import sys
from pathlib import Path

import pytest

from stock_pipeline.errors import SpoolFull
from stock_pipeline.ingest.spool import LOST_IDS, Record, Spool


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "producer" / "spool.sqlite"


def record(number: int, size: int = 10) -> Record:
    return Record("topic", b"SYMBOL", f"{number:0{size}}".encode(), 1_700_000_000_000 + number, {"reason": "none"})


def test_records_come_back_as_they_were_in_their_order(path: Path):
    spool = Spool(path, 10)
    records = [record(number) for number in range(5)] + [Record("other", None, b"\xff\x00", 1)]
    spool.append(records[:3])
    spool.append(records[3:])
    found = spool.after(0, 100)
    assert [kept for _, kept in found] == records
    numbers = [number for number, _ in found]
    assert numbers == sorted(numbers)
    assert spool.after(numbers[1], 2) == found[2:4]
    assert spool.oldest_ms() == 1


def test_an_id_is_never_used_again(path: Path):
    spool = Spool(path, 10)
    spool.append([record(1), record(2)])
    (_, last) = [number for number, _ in spool.after(0, 10)]
    spool.drop_below(last + 1)
    assert (len(spool), spool.oldest_ms()) == (0, None)
    spool.close()
    again = Spool(path, 10)
    again.append([record(3)])
    assert again.after(0, 10)[0][0] > last
    assert again.name == spool.name


def test_what_was_appended_outlives_a_killed_process(path: Path):
    code = f"""
import os, signal
from pathlib import Path
from stock_pipeline.ingest.spool import LOST_IDS, Record, Spool
spool = Spool(Path({str(path)!r}), 10)
spool.append([Record("topic", None, b"kept", 1)])
spool._file.execute("BEGIN")
spool._file.execute("INSERT INTO record (topic, value, received_ms, headers) VALUES ('topic', x'00', 1, '{{}}')")
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code])
    assert done.returncode == -9
    assert [kept.value for _, kept in Spool(path, 10).after(0, 10)] == [b"kept"]


def test_a_full_spool_says_so_and_takes_again_what_has_room(path: Path):
    spool = Spool(path, 1)
    with pytest.raises(SpoolFull, match="SPOOL_LIMIT_MB is 1"):
        for number in range(1000):
            spool.append([record(2 * number, 5_000), record(2 * number + 1, 5_000)])
    kept = spool.after(0, 10_000)
    # All or none of an append, in a file of no more than a megabyte.
    assert len(kept) % 2 == 0 and len(kept) * 5_000 < 1_000_000 < (len(kept) + 20) * 5_000
    assert path.stat().st_size <= 1_000_000
    spool.drop_below(kept[40][0])
    spool.append([record(1, 5_000)])


def test_single_records_are_dropped(path: Path):
    spool = Spool(path, 10)
    spool.append([record(number) for number in range(4)])
    numbers = [number for number, _ in spool.after(0, 10)]
    spool.drop(numbers[1:3])
    assert [number for number, _ in spool.after(0, 10)] == [numbers[0], numbers[3]]


def test_after_a_start_of_the_machine_no_id_is_one_that_may_have_been_lost(path: Path, monkeypatch: pytest.MonkeyPatch):
    spool = Spool(path, 10)
    spool.append([record(1), record(2)])
    [_, (last, _)] = spool.after(0, 10)
    spool.close()
    for boot in ("second", "third"):
        monkeypatch.setattr("stock_pipeline.ingest.spool.boot_id", lambda boot=boot: boot)
        again = Spool(path, 10)
        again.append([record(3)])
        Spool(path, 10).append([record(4)])
        *_, (first, _), (second, _) = again.after(0, 10)
        assert (first, second) == (last + LOST_IDS + 1, last + LOST_IDS + 2)
        last = second
    assert len(again) == 6


def test_after_a_start_of_the_machine_even_the_first_id_is_another(path: Path, monkeypatch: pytest.MonkeyPatch):
    Spool(path, 10).close()
    monkeypatch.setattr("stock_pipeline.ingest.spool.boot_id", lambda: "second")
    spool = Spool(path, 10)
    spool.append([record(1)])
    assert [number for number, _ in spool.after(0, 10)] == [LOST_IDS + 1]


def test_the_topics_of_all_records_are_known(path: Path):
    spool = Spool(path, 10)
    spool.append([Record(topic, None, b"", 1) for topic in ("b", "a", "b")])
    assert spool.topics() == ["a", "b"]
