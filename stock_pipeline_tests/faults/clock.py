"""A clock that can be stepped, for the producer alone: its Python finds `sitecustomize` of this folder."""

import os
from collections.abc import Mapping
from pathlib import Path


class Clock:
    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.step(0)

    def step(self, seconds: float) -> None:
        """Let the clock be so far ahead of the machine's."""
        partial = self._file.with_suffix(".new")
        partial.write_text(str(seconds))
        partial.replace(self._file)

    @property
    def environment(self) -> Mapping[str, str]:
        paths = [str(Path(__file__).parent / "stepped_clock"), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {"PYTHONPATH": os.pathsep.join(paths), "STEPPED_CLOCK": str(self._file)}
