"""A Python environment for Quix Streams, which wants other versions of packages than the product."""

import subprocess
import sys
import venv
from pathlib import Path

FOLDER = Path(sys.prefix) / "quixstreams"

LOCK = Path(__file__).parent / "quixstreams.lock"


def python() -> Path:
    """Its interpreter; it is made where it is missing."""
    program, ready = FOLDER / "bin" / "python", FOLDER / LOCK.name
    if not ready.exists() or ready.read_text() != LOCK.read_text():
        venv.create(FOLDER, with_pip=True, clear=True)
        install = [str(program), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "--require-hashes", "--no-deps", "--requirement", str(LOCK)], check=True)
        ready.write_text(LOCK.read_text())
    return program
