"""The one-to-one pairing in its process: the answer, the time that is said, stopping, a child that dies."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from wbtui.compute.pairing import GUESS_N, GUESS_S, Pairing, expected
from wbtui.errors import Cancelled, WorkError

SLOW = 3000
"""Rows of a matrix that takes scipy seconds: all entries close to each other."""


def slow(pairing: Pairing, n: int = SLOW) -> np.ndarray:
    """A matrix whose pairing takes long: every row wants the same columns."""
    room = pairing.room(n, n)
    i = np.arange(1, n + 1, dtype=np.float64)
    np.multiply(i[:, None], i[None], out=room)
    return room


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize(("n", "m"), [(1, 1), (520, 600)])
def test_the_answer_is_scipys(n: int, m: int) -> None:
    cost = np.random.default_rng(n).standard_normal((n, m))
    shares: list[float] = []
    with Pairing(progress=shares.append) as pairing:
        pairing.room(n, m)[:] = cost
        pid = pairing.pid
        assert pid is not None and not gone(pid)
        x, y = pairing.solve()
    want = linear_sum_assignment(cost)
    assert np.array_equal(x, want[0]) and np.array_equal(y, want[1])
    assert shares and all(0 <= share < 1 for share in shares)
    assert gone(pid)


def test_a_stop_ends_it_at_once_and_leaves_no_process() -> None:
    """From the flag to the end: a look at the flag, and a killed process."""
    flag, raised = threading.Event(), 0.0
    shares: list[float] = []

    def raise_flag() -> None:
        nonlocal raised
        raised = time.perf_counter()
        flag.set()

    def progress(share: float) -> None:
        shares.append(share)
        if len(shares) == 3:
            raise_flag()

    with Pairing(flag.is_set, progress) as pairing:
        slow(pairing)
        pid = pairing.pid
        with pytest.raises(Cancelled):
            pairing.solve()
    took = time.perf_counter() - raised
    assert pid is not None and gone(pid)
    assert len(shares) <= 4 and took < 0.1, took


def test_a_child_that_dies_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(pairing: Pairing) -> Callable[[float], None]:
        def progress(_: float) -> None:
            assert pairing.pid is not None
            os.kill(pairing.pid, signal.SIGKILL)

        return progress

    with Pairing() as pairing:
        pairing._progress = kill(pairing)
        slow(pairing)
        with pytest.raises(WorkError, match="signal 9"):
            pairing.solve()
    monkeypatch.setattr(os, "ftruncate", _no_space)
    with Pairing() as other, pytest.raises(WorkError, match="no room for all cosines"):
        other.room(10, 10)


def _no_space(fd: int, size: int) -> None:
    raise OSError(28, "No space left on device")


def test_the_child_goes_with_its_parent() -> None:
    """Its standard input closes when the parent dies, however that happens."""
    with Pairing() as pairing:
        slow(pairing)
        child = pairing._child
        assert child is not None and child.stdin is not None
        child.stdin.write(b"\n")
        child.stdin.close()
        assert child.wait(30) == 1


def test_the_time_that_is_said_grows_as_measured() -> None:
    assert expected([], GUESS_N) == GUESS_S
    assert expected([(1000, 2.0)], 2000) == pytest.approx(2.0 * 2**2.2)
    assert expected([(1000, 1.0), (2000, 4.0)], 8000) == pytest.approx(64.0)  # a square
    assert expected([(1000, 1.0), (2000, 100.0)], 4000) == pytest.approx(800.0)  # no more than a cube
    assert expected([(10, 5.0)], GUESS_N) == GUESS_S  # too small to say anything
