"""A real dask scheduler and worker processes on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from tests.service.conftest import wait_until
from wbtui.service.start import with_package


class Cluster:
    """``dask scheduler`` and some ``dask worker`` processes. Use as a context manager.

    Args:
        folder: for the scheduler's file and what the processes print.
        workers: how many.
    """

    def __init__(self, folder: Path, workers: int) -> None:
        self.folder = folder
        self.count = workers
        self.processes: list[subprocess.Popen[bytes]] = []
        self.url = ""

    def __enter__(self) -> Cluster:
        place = self.folder / "scheduler.json"
        common = ["--scheduler-file", str(place)]
        self._start("scheduler", *common, "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        wait_until(lambda: place.exists() and place.read_text().rstrip().endswith("}"), what="the scheduler is up")
        self.url = json.loads(place.read_text())["address"].replace("tcp://", "dask://")
        for _ in range(self.count):
            self._start("worker", *common, "--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1")
        return self

    def _start(self, what: str, *words: str) -> None:
        env = with_package({**os.environ, "OMP_NUM_THREADS": "1", "DASK_LOGGING__DISTRIBUTED": "error"})
        with open(self.folder / f"{what}.out", "ab") as out:
            command = [sys.executable, "-P", "-m", "dask", what, *words, "--local-directory", str(self.folder)]
            if what == "scheduler":
                command = command[:-2]
            self.processes.append(subprocess.Popen(command, stdout=out, stderr=out, env=env, cwd=self.folder))

    def kill(self, n: int) -> None:
        """``kill -9`` of worker ``n``."""
        self.processes[1 + n].send_signal(signal.SIGKILL)

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in reversed(self.processes):
            with contextlib.suppress(OSError):
                process.kill()
        for process in self.processes:
            process.wait()
