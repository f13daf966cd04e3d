"""A small disk for the checkpoints, that can be filled."""

import subprocess
from pathlib import Path

SIZE_MB = 200


class Disk:
    """A file system in memory, mounted at a folder; `is_there` is false where this machine does not let us mount."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "stock_pipeline_faults", folder]
        self.is_there = subprocess.run(command, capture_output=True).returncode == 0

    def fill(self) -> None:
        with (self._folder / "ballast").open("wb", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(bytes(65_536))
            except OSError:
                return

    def free(self) -> None:
        (self._folder / "ballast").unlink(missing_ok=True)

    def remove(self) -> None:
        if self.is_there:
            subprocess.run(["umount", "--lazy", self._folder], check=True)
