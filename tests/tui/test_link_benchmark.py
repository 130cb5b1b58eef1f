"""The slow line of the benchmark counts as a line does; its table and its aims say what was found."""

from __future__ import annotations

import os

import pytest

from benchmarks import link
from benchmarks.app import FRAME_END


class Clock:
    """Time that passes where it is slept, and a microsecond at each look: a busy machine changes nothing."""

    now = 100.0

    def perf_counter(self) -> float:
        self.now += 1e-6
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Scripted(link.Line):
    """A line to an app that answers each key with so many bytes."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.end, self.fd = os.pipe()
        os.set_blocking(self.end, False)

    def read(self, within: float) -> bytes:
        try:
            keys = os.read(self.end, 100)
        except BlockingIOError:
            link.time.sleep(min(within, 0.005))
            return b""
        return b"".join(b"x" * (self.size - len(FRAME_END)) + FRAME_END for _ in keys)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "REST", 0.05)
    monkeypatch.setattr(link, "time", Clock())


def test_delay_both_ways_and_the_bytes_at_the_line_s_speed() -> None:
    """12,500 bytes take 100 ms at 1 Mbit/s, the way there and back 150 ms."""
    found = Scripted(12_500).act([b"j"])
    assert found["bytes"] == 12_500 and found["frames"] == 1
    assert 249.9 <= found["last_ms"] < 256
    assert found["first_ms"] == found["last_ms"] and found["queue_ms"] == 0


def test_what_comes_faster_than_the_line_carries_queues() -> None:
    """Ten keys at once, 2,500 bytes each: the tenth answer waits for the nine before it, 180 ms."""
    found = Scripted(2_500).act([b"j"] * 10, every=0.001)
    assert found["bytes"] == 25_000
    assert 170 <= found["queue_ms"] <= 180
    assert 340 <= found["last_ms"] < 360
    slow = Scripted(2_500).act([b"j"] * 3, every=0.06)
    assert slow["queue_ms"] == 0


def test_table_and_aims() -> None:
    got = {"bytes": 900.0, "first_ms": 160.0, "last_ms": 240.0, "queue_ms": 0.0, "frames": 2}
    found = {
        "demo": {"open the app": {**got, "bytes": 5e4}, "cursor move": got, "heads (h)": {**got, "bytes": 3e4}},
        "big": {"open the app": got, "cursor move": got, "page down held 2 s": {**got, "queue_ms": 300.0},
                link.UNPACED: {**got, "queue_ms": 900.0}},
    }  # fmt: skip
    lines = link.table(found)
    assert "| cursor move | 900 | 160, 240 | 900 | 160, 240 |" in lines
    assert any(line.startswith("| heads (h) | 30,000 |") and line.endswith("– | – |") for line in lines)
    assert link.missed(found) == ["demo, heads (h): 30,000 bytes, aim 20,000",
                                  "big, page down held 2 s: queue 300 ms, aim 100"]  # fmt: skip
