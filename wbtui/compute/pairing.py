"""Linear sum assignment (scipy) in a process of its own: nothing inside scipy can be stopped, a process can.

The matrix lies in memory that both processes map and no file system has a name for. The child solves the upper left
eighth and quarter of it first: how their times grow says how long the whole will take.
"""

from __future__ import annotations

import math
import mmap
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from types import TracebackType

import numpy as np

from wbtui.analysis.either import Stop, poll
from wbtui.errors import WorkError

Pairs = tuple[np.ndarray, np.ndarray]
"""Rows and columns that are paired. (No torch is loaded here: the child is there in a second or less.)"""
LOOK = 0.02
"""Seconds between two looks at the stop flag."""
PARTS = (8, 4)
LEAST = 128
"""Rows of a part whose time says anything."""
POWERS = (1.5, 3.0)
"""How the time grows with the size, at least and at most; the method's bound is the cube."""
GUESS_S, GUESS_N, GUESS_POWER = 2.0, 4096, 2.2
"""A pairing of 4,096 random directions with as many took this long: what is shown before anything is measured."""
NEARLY = 0.98
"""Share that is shown where an estimate has run out."""


class Pairing:
    """The child and the memory that it works in; a context, at whose end the child is gone.

    Args:
        stop: polled while the child works.
        progress: told the share that is probably done, a few times a second.
    """

    def __init__(self, stop: Stop | None = None, progress: Callable[[float], None] | None = None) -> None:
        self._stop, self._progress = stop, progress
        self._child: subprocess.Popen[bytes] | None = None
        self._memory: mmap.mmap | None = None
        self._shape = (0, 0)

    def __enter__(self) -> Pairing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()
        child.wait()

    @property
    def pid(self) -> int | None:
        """Of the child, while there is one."""
        return None if self._child is None else self._child.pid

    def room(self, n: int, m: int) -> np.ndarray:
        """The matrix ``[n, m]`` fp64 to be filled; the child starts and loads scipy meanwhile."""
        self._shape = (n, m)
        fd = _memory(8 * n * m + 16 * n)
        try:
            self._memory = mmap.mmap(fd, 8 * n * m + 16 * n)
            command = [sys.executable, "-m", "wbtui.compute.pairing", str(fd), str(n), str(m)]
            pipe = subprocess.PIPE
            self._child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, pass_fds=(fd,))
        finally:
            os.close(fd)
        return np.ndarray((n, m), np.float64, self._memory)

    def solve(self) -> Pairs:
        """The rows and columns whose sum is smallest.

        Raises:
            Cancelled: the stop flag went up; the child is gone.
            WorkError: the child ended early.
        """
        child, (n, m) = self._child, self._shape
        assert child is not None and child.stdin is not None and child.stdout is not None
        child.stdin.write(b"\n")
        child.stdin.flush()
        parts: list[tuple[int, float]] = []
        whole, began, text = expected(parts, n), time.monotonic(), b""
        while True:
            poll(self._stop)
            if self._progress is not None:
                self._progress(min((time.monotonic() - began) / whole, NEARLY))
            if not select.select([child.stdout], [], [], LOOK)[0]:
                continue
            more = os.read(child.stdout.fileno(), 4096)
            if not more:
                raise WorkError(*_ended(child))
            text += more
            *lines, text = text.split(b"\n")
            for line in lines:
                if line == b"done":
                    found = np.ndarray((2, n), np.int64, self._memory, 8 * n * m).copy()
                    return found[0], found[1]
                size, seconds = line.split()
                parts.append((int(size), float(seconds)))
                whole, began = expected(parts, n), time.monotonic()


def expected(parts: list[tuple[int, float]], n: int) -> float:
    """Seconds that a pairing of ``n`` rows will take, from (rows, seconds) of smaller ones."""
    usable = [(size, seconds) for size, seconds in parts if size >= LEAST and seconds > 0]
    if not usable:
        return float(max(GUESS_S * (n / GUESS_N) ** GUESS_POWER, 0.1))
    power = GUESS_POWER
    if len(usable) > 1:
        (small, short), (large, long) = usable[-2:]
        power = min(max(math.log(long / short) / math.log(large / small), POWERS[0]), POWERS[1])
    size, seconds = usable[-1]
    return float(max(seconds * (n / size) ** power, 1e-3))


def _memory(size: int) -> int:
    """A descriptor of nameless memory; where the system has none, of a nameless file.

    Raises:
        WorkError: no room for it.
    """
    fd = -1
    try:
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("wbtui-pairing")
        else:
            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        os.ftruncate(fd, size)
    except OSError as error:
        if fd >= 0:
            os.close(fd)
        raise WorkError(
            f"no room for all cosines ({size / 1e9:.1f} GB: {error.strerror})", "as much memory", "leave --assign out"
        ) from None
    return fd


def _ended(child: subprocess.Popen[bytes]) -> tuple[str, str, str]:
    code = child.wait()
    said = (child.stderr.read() if child.stderr is not None else b"").decode(errors="replace").strip().splitlines()
    how = f"signal {-code}" if code < 0 else (said[-1] if said else f"code {code}")
    return f"the process that pairs one to one ended ({how})", "its answer", "try again; --assign holds all cosines"


def main(argv: list[str]) -> int:
    """The child: arguments are the memory's descriptor, rows, columns."""
    fd, n, m = (int(word) for word in argv)
    memory = mmap.mmap(fd, 8 * n * m + 16 * n)
    cost = np.ndarray((n, m), np.float64, memory)
    from scipy.optimize import linear_sum_assignment

    if not sys.stdin.buffer.readline():
        return 1

    def watch() -> None:  # the parent is gone: nobody wants the answer
        sys.stdin.buffer.read()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    for part in PARTS:
        if n // part >= LEAST:
            began = time.perf_counter()
            linear_sum_assignment(cost[: n // part, : m // part])
            print(n // part, time.perf_counter() - began, flush=True)
    found = np.ndarray((2, n), np.int64, memory, 8 * n * m)
    found[0], found[1] = linear_sum_assignment(cost)
    print("done", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
