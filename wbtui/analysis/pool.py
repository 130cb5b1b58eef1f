"""Threads that each own whole pieces of a tile and run one-thread operations on them.

A piece (a slice of the vocabulary, a block of rows) is cut by its size alone and computed by one thread, so numbers do
not depend on how many threads there are; operations that a library spreads over its own threads do (their sums are cut
where the threads meet). It is also the faster way on a shared machine: no barrier waits inside an operation for a
thread that somebody else's job has pushed aside (speed notes, b.4).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from wbtui.analysis.share import shared

T = TypeVar("T")
R = TypeVar("R")

LEAST = 1 << 22
"""Numbers below which handing work over costs more than it gains."""

_here = threading.local()
_executors: dict[int, ThreadPoolExecutor] = {}
_turn = threading.Lock()
"""One map at a time: the number of threads of an operation is the process's."""


def _begin() -> None:
    torch.set_num_threads(1)
    _here.inside = True


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Operations inside run on this thread alone (changing that costs more than a small operation: do it around many);
    :func:`spread` uses as many threads as torch might have used."""
    if getattr(_here, "inside", False) or getattr(_here, "threads", 0):
        yield
        return
    with _turn:
        _here.threads = threads = torch.get_num_threads()
        try:
            if threads > 1:
                torch.set_num_threads(1)
            yield
        finally:
            _here.threads = 0
            if threads > 1:
                torch.set_num_threads(threads)


def spread(work: Callable[[T], R], items: Iterable[T], elements: int) -> list[R]:
    """``[work(item) for item in items]`` with one-thread operations, the items shared out among threads.

    Args:
        work: must only call operations on the CPU.
        elements: numbers that all items together read or write; fewer than ``LEAST`` are worked on right here.

    The first error ends it: what has not begun by then is left out.
    """
    items = list(items)
    if getattr(_here, "inside", False):
        return [work(item) for item in items]
    with one_thread():
        if _here.threads == 1 or elements < LEAST or len(items) == 1:
            return [work(item) for item in items]
        return _shared(work, items, _here.threads)


def _shared(work: Callable[[T], R], items: list[T], threads: int) -> list[R]:
    executor = _executors.get(threads)
    if executor is None:
        executor = _executors[threads] = ThreadPoolExecutor(threads, "wbtui-tile", initializer=_begin)
    return shared(executor, work, items)
