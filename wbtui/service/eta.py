"""How long the rest will take, from what was measured here."""

from __future__ import annotations

from collections.abc import Iterable

ALIKE = {"null": "tokens", "tokens": "null"}
"""Analyses whose rows cost about the same: one's measured rate stands in for the other's until it has its own."""
WEIGHT = 0.3
"""Of the newest shard in the running mean: the first one of an SAE carries the reading of the weights."""


class Rates:
    """Rows per second of one worker, by analysis.

    Args:
        workers: how many work side by side.
    """

    def __init__(self, workers: int = 1) -> None:
        self.workers = max(workers, 1)
        self._measured: dict[str, float] = {}
        self._hints: dict[str, float] = {}

    def add(self, analysis: str, rows: float, seconds: float) -> None:
        """One shard has been measured."""
        if rows <= 0 or seconds <= 0:
            return
        rate = rows / seconds
        before = self._measured.get(analysis)
        self._measured[analysis] = rate if before is None else (1 - WEIGHT) * before + WEIGHT * rate

    def hint(self, analysis: str, rows: float, seconds: float) -> None:
        """A shard under way has come so far; used only until one has been measured."""
        if rows > 0 and seconds > 0:
            self._hints[analysis] = rows / seconds

    def rate(self, analysis: str) -> float | None:
        """Rows per second of one worker, or None if nothing comparable is known."""
        for table in (self._measured, self._hints):
            for name in (analysis, ALIKE.get(analysis, "")):
                if name in table:
                    return table[name]
        return None

    def eta(self, left: Iterable[tuple[str, float]]) -> float | None:
        """Seconds for rows left by analysis, all workers at it; None if an analysis has never been measured."""
        total: dict[str, float] = {}
        for analysis, rows in left:
            total[analysis] = total.get(analysis, 0.0) + rows
        seconds = 0.0
        for analysis, rows in total.items():
            if rows <= 0:
                continue
            rate = self.rate(analysis)
            if rate is None:
                return None
            seconds += rows / rate
        return round(seconds / self.workers, 1)
