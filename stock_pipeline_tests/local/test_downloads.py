"""Downloads are verified at each use: what is damaged is fetched again, what stays wrong is named."""

import hashlib
from pathlib import Path

import pytest

from stock_pipeline.errors import InstallError
from stock_pipeline.local.downloads import install

CONTENT = b"what Maven serves"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "stock_pipeline"


class Source:
    """A download of one file."""

    def __init__(self, content: bytes = CONTENT) -> None:
        self.content = content
        self.fetched = 0

    def __call__(self, folder: Path) -> None:
        self.fetched += 1
        (folder / "part.jar").write_bytes(self.content)


def lock_file(folder: Path) -> Path:
    path = folder / "jars.sha256"
    path.write_text(f"{hashlib.sha256(CONTENT).hexdigest()}  part.jar\n")
    return path


@pytest.mark.parametrize("with_lock_file", [True, False])
@pytest.mark.parametrize(
    "damage",
    [lambda path: path.write_bytes(CONTENT[:5]), lambda path: path.unlink(), lambda path: path.write_bytes(b"")],
    ids=["truncated", "missing", "empty"],
)
def test_what_is_damaged_is_fetched_again(cache: Path, tmp_path: Path, damage, with_lock_file: bool):
    manifest = lock_file(tmp_path) if with_lock_file else None
    source = Source()
    folder = install("jars", "archives", source, manifest)
    assert install("jars", "archives", source, manifest) == folder == cache / "jars"
    assert source.fetched == 1
    damage(folder / "part.jar")
    assert (install("jars", "archives", source, manifest) / "part.jar").read_bytes() == CONTENT
    assert source.fetched == 2


def test_an_interrupted_installation_begins_again(cache: Path):
    def interrupted(folder: Path) -> None:
        (folder / "part.jar").write_bytes(CONTENT)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        install("jars", "archives", interrupted)
    source = Source()
    install("jars", "archives", source)
    assert source.fetched == 1


def test_a_download_with_another_hash_is_refused_by_name(tmp_path: Path):
    with pytest.raises(InstallError, match=r"part\.jar .*jars\.sha256"):
        install("jars", "archives", Source(b"something else"), lock_file(tmp_path))
