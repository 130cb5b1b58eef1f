"""Frames keep to what the line to the terminal carries, so that nothing queues up while a key is held down.

Over SSH a frame that is written is taken at once, by sockets with room for seconds of a slow line: what is drawn then
arrives late, and goes on arriving after the key is released. So a frame waits until the line would have carried most of
those before it; what changes meanwhile is drawn in one. On a terminal of this machine nothing waits.
"""

from __future__ import annotations

import time
from typing import Any

from wbtui.tui.thrift import erases, thin

SLACK = 0.06
"""Seconds of frames that may be under way."""
AGAIN = 0.5
"""Seconds within which the same frame, with none between, is not written again."""
MARKS = ("\x1b[?2026h", "\x1b[?2026l")
"""Begin and end of a frame, for terminals that draw it at once."""


class Pace:
    """How far the line is behind.

    Args:
        kbit: kilobits a second that it carries; 0: no limit.
    """

    def __init__(self, kbit: float) -> None:
        self.bytes_per_second = kbit * 125
        self._free_at = 0.0

    def wrote(self, count: int, now: float | None = None) -> None:
        """So many bytes are on their way."""
        if self.bytes_per_second > 0:
            now = time.monotonic() if now is None else now
            self._free_at = max(self._free_at, now) + count / self.bytes_per_second

    def open(self, now: float | None = None) -> bool:
        """Whether the next frame may be drawn."""
        return self._free_at - (time.monotonic() if now is None else now) <= SLACK


def counted(driver: type[Any], pace: Pace, *, thinned: bool = False) -> type[Any]:
    """A Textual driver whose writes are counted, and made small where a line is slow (unless they come ``thinned``)."""
    slow = pace.bytes_per_second > 0 and not thinned
    erase = slow and erases()

    last = ("", 0.0)

    def write(self: Any, data: str) -> None:
        nonlocal last
        if slow and data not in MARKS:
            now = time.monotonic()
            if data == last[0] and now - last[1] < AGAIN:
                return  # a screen that is shown is often drawn twice; the second time changes nothing
            last = (data, now)
            data = thin(data, erase)
        pace.wrote(len(data.encode("utf-8", "replace")))
        driver.write(self, data)

    return type(f"Counted{driver.__name__}", (driver,), {"write": write})
