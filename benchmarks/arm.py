"""One way of doing the work that is compared: a process of its own, which does one task after the other when asked.

Such a process is a module that calls `serve`. It is told a task by a line on its standard input, and answers with a
line when it is done; how long that takes is measured there, without the start of the process. Needs the standard
library only, since one of the ways has a Python environment of its own.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

ANSWER = "answer "
"""Begins a line of ours: libraries write to the standard output, too."""


def serve(tasks: Mapping[str, Callable[[str], float | None]]) -> None:
    """Do what is asked for until the standard input ends.

    Args:
        tasks: each takes a topic, and returns its seconds where the call's own are not what counts.
    """
    print(ANSWER, json.dumps(0), flush=True)
    for line in sys.stdin:
        task, topic = line.split()
        began = time.perf_counter()
        seconds = tasks[task](topic)
        print(ANSWER, json.dumps(seconds or time.perf_counter() - began), flush=True)


@dataclass
class Arm:
    process: subprocess.Popen[str]

    @classmethod
    def start(cls, module: str, environment: Mapping[str, str], log: Path, python: str = sys.executable) -> Self:
        """Start `python -m module` and wait until it is ready."""
        with log.open("ab") as errors:
            process = subprocess.Popen(
                [python, "-m", module],
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        arm = cls(process)
        arm._answer()
        return arm

    def do(self, task: str, topic: str) -> float:
        """Seconds that a task took."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{task} {topic}\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> float:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(ANSWER):
                return float(json.loads(line.removeprefix(ANSWER)))
        raise RuntimeError(f"{self.process.args!r} ended with {self.process.wait()}")

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(timeout=60)
        finally:
            self.process.kill()
