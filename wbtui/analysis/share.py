"""Calls shared out among threads, whichever library they compute with."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Executor, wait
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

SWITCH = 2e-4
"""Seconds after which a thread that wants the interpreter gets it: pieces are calls of a fraction of a millisecond."""


def shared(executor: Executor, work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """``[work(item) for item in items]`` by an executor's threads. The first error ends it: what has not begun by then
    is left out, and what has is waited for. One call at a time: the interval of switching is the process's."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH)
    futures = [executor.submit(work, item) for item in items]
    try:
        wait(futures, return_when=FIRST_EXCEPTION)
    finally:
        for future in futures:
            future.cancel()
        wait(futures)
        sys.setswitchinterval(interval)
    for future in futures:
        if not future.cancelled() and future.exception() is not None:
            future.result()
    return [future.result() for future in futures]
