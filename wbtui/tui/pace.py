"""Frames keep to what the line to the terminal carries, so that nothing queues up while a key is held down.

Over SSH a frame that is written is taken at once, by sockets with room for seconds of a slow line: what is drawn then
arrives late, and goes on arriving after the key is released. So a frame waits until the line would have carried most of
those before it; what changes meanwhile is drawn in one. On a terminal of this machine nothing waits.
"""

from __future__ import annotations

import time
from typing import Any

SLACK = 0.06
"""Seconds of frames that may be under way."""


class Pace:
    """How far the line is behind.

    Args:
        kbit: kilobits a second that it carries; 0: no limit.
    """

    def __init__(self, kbit: float) -> None:
        self.bytes_per_second = kbit * 125
        self._free_at = 0.0

    @property
    def limited(self) -> bool:
        """Whether the line is known to be slow."""
        return self.bytes_per_second > 0

    def wrote(self, count: int, now: float | None = None) -> None:
        """So many bytes are on their way."""
        if self.limited:
            now = time.monotonic() if now is None else now
            self._free_at = max(self._free_at, now) + count / self.bytes_per_second

    def open(self, now: float | None = None) -> bool:
        """Whether the next frame may be drawn."""
        return self._free_at - (time.monotonic() if now is None else now) <= SLACK


def counted(driver: type[Any], pace: Pace) -> type[Any]:
    """A Textual driver whose writes are counted."""

    def write(self: Any, data: str) -> None:
        pace.wrote(len(data.encode("utf-8", "replace")))
        driver.write(self, data)

    return type(f"Counted{driver.__name__}", (driver,), {"write": write})
