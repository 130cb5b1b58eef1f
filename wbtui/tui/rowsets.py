"""Sets and orders of rows, by feature number."""

from __future__ import annotations

import numpy as np


class Marks:
    """An immutable set of row numbers, as a bit per row: a million marks are copied in 20 µs."""

    __slots__ = ("bits", "count")

    def __init__(self, bits: np.ndarray | None = None) -> None:
        """Take over ``bits`` (bool [n])."""
        self.bits = np.zeros(0, dtype=bool) if bits is None else bits
        self.bits.flags.writeable = False
        self.count = int(np.count_nonzero(self.bits))

    def __contains__(self, row: object) -> bool:
        return isinstance(row, int) and 0 <= row < len(self.bits) and bool(self.bits[row])

    def __len__(self) -> int:
        return self.count

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Marks) and self.count == other.count and np.array_equal(self.numbers(), other.numbers())
        )

    def __hash__(self) -> int:
        return hash(self.numbers().tobytes())

    def numbers(self) -> np.ndarray:
        """The marked rows, rising (int64)."""
        return np.flatnonzero(self.bits)

    def toggled(self, row: int) -> Marks:
        """With ``row`` marked if it was not, unmarked if it was."""
        bits = self._grown(row + 1)
        bits[row] = not bits[row]
        return Marks(bits)

    def with_rows(self, rows: np.ndarray) -> Marks:
        """With all of ``rows`` marked too."""
        if len(rows) == 0:
            return self
        bits = self._grown(int(np.max(rows)) + 1)
        bits[rows] = True
        return Marks(bits)

    def _grown(self, size: int) -> np.ndarray:
        bits = np.zeros(max(size, len(self.bits)), dtype=bool)
        bits[: len(self.bits)] = self.bits
        return bits


NEAR = 64
"""Places around the last one that are looked at first: a cursor moves by a line or a page."""


class Rows:
    """The rows that are shown, in their order: derived from filter, sort and table; never part of the state."""

    def __init__(self, order: np.ndarray, total: int) -> None:
        """``order``: row numbers in shown order (int [m]); ``total``: rows of the table."""
        self.order = order
        self.total = total
        self._last = 0
        self._known: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self.order)

    def position(self, row: int) -> int:
        """Where ``row`` stands, -1 if it is not shown.

        Found by looking, not by an inverse: that would take as much memory as the rows, and longer at each keystroke.
        """
        found = self._known.get(row)
        if found is None:
            found = self._find(row)
            if len(self._known) >= 4096:
                self._known.clear()
            self._known[row] = found
        if found >= 0:
            self._last = found
        return found

    def _find(self, row: int) -> int:
        if not 0 <= row < self.total:
            return -1
        near = max(0, self._last - NEAR)
        hits = np.flatnonzero(self.order[near : near + 2 * NEAR] == row)
        if len(hits):
            return near + int(hits[0])
        for start in range(0, len(self.order), 65_536):
            hits = np.flatnonzero(self.order[start : start + 65_536] == row)
            if len(hits):
                return start + int(hits[0])
        return -1

    def positions(self, rows: np.ndarray) -> np.ndarray:
        """:meth:`position` of many at once, int64."""
        inverse = np.full(self.total, -1, dtype=np.int32)
        inverse[self.order] = np.arange(len(self.order), dtype=np.int32)
        inside = (rows >= 0) & (rows < self.total)
        return (
            np.where(inside, inverse[np.where(inside, rows, 0)], -1).astype(np.int64) if self.total else -1 - 0 * rows
        )
