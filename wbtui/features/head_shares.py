"""How many features stand beyond a line in heads, and how much noise does by the same line (methods 1.3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wbtui.features.head_parts import HeadNull, Share, percentiles, strongest


class HeadShares:
    """Mixed into :class:`wbtui.features.heads.HeadTable`, which has the numbers."""

    nulls: list[HeadNull]
    checks: list[HeadNull]

    def ratios(self, side: str, statistic: str | None = None, null: HeadNull | None = None) -> np.ndarray:
        """See :class:`~wbtui.features.heads.HeadTable`."""
        raise NotImplementedError

    def _chosen(self, statistic: str | None) -> str:
        raise NotImplementedError

    def _cached(self, key: Any, make: Callable[[], Any]) -> Any:
        raise NotImplementedError

    @property
    def _bars_ready(self) -> bool:
        raise NotImplementedError

    @property
    def judges(self) -> tuple[Sequence[HeadNull], bool]:
        """The nulls that tell how much noise lies beyond a line: fresh ones if there are, and whether they are."""
        fresh = [null for null in self.checks if null.kind != "sign_flip"]
        return (fresh, True) if fresh else (self.nulls, False)

    def pairs(self, side: str, statistic: str | None = None, head: int | None = None) -> Share:
        """(feature, head) pairs beyond the line, of all heads or of one, with the noise's own share."""
        which = slice(None) if head is None else slice(head, head + 1)

        def beyond(ratios: np.ndarray) -> tuple[int, int]:
            known = ratios[which][np.isfinite(ratios[which])]
            return int((known > 1).sum()), int(known.size)

        def make() -> Share:
            nulls, fresh = self.judges
            noise = [beyond(self.ratios(side, statistic, null)) for null in nulls]
            shares = [count / n for count, n in noise if n]
            return Share(*beyond(self.ratios(side, statistic)), max(shares) if shares else math.nan, fresh)

        return self._cached(("pairs", side, self._chosen(statistic), head), make)

    def any_head(self, side: str, statistic: str | None = None) -> Share:
        """Features that take part in some head: their largest ratio over heads is above the null's own 99th percentile
        of the largest ratio over heads, for with many heads noise passes one of them often (methods 1.3)."""

        def make() -> Share:
            bar = self.any_bar(side, statistic)
            own = strongest(self.ratios(side, statistic))
            known = own[np.isfinite(own)]
            nulls, fresh = self.judges
            shares = []
            for null in nulls:
                top = strongest(self.ratios(side, statistic, null))
                top = top[np.isfinite(top)]
                if len(top):
                    shares.append(float((top > bar).mean()))
            return Share(int((known > bar).sum()), len(known), max(shares) if shares else math.nan, fresh, bar)

        return self._cached(("any", side, self._chosen(statistic)), make)

    def any_bar(self, side: str | None, statistic: str | None = None) -> float:
        """99th percentile over directions of the largest ratio over heads (None: and both sides), the larger over null
        kinds."""

        def make() -> float:
            found = [float(percentiles(strongest(self._either(side, statistic, n))[None])[0]) for n in self.nulls]
            return max(found) if found and self._bars_ready else math.nan

        return self._cached(("any bar", side, self._chosen(statistic)), make)

    def leader(self, side: str | None = None, statistic: str | None = None) -> np.ndarray:
        """The head that leads each feature: that of its largest ratio among all heads of the layer.

        Args:
            side: ``query`` or ``key``; None: the larger side of each head.

        Returns:
            np.ndarray: int [n]; ties go to the smaller head; -1 where the largest ratio does not pass
            :meth:`any_bar`, the noise's own 99th percentile of that largest; -2 where nothing is known.
        """

        def make() -> np.ndarray:
            ratios = self._either(side, statistic)
            known = np.isfinite(ratios)
            filled = np.where(known, ratios, -np.inf)
            out = filled.argmax(0).astype(np.int32)
            bar = self.any_bar(side, statistic)
            out[~(filled.max(0) > bar)] = -1
            out[~known.any(0) | np.isnan(bar)] = -2
            return out

        return np.asarray(self._cached(("leader", side, self._chosen(statistic)), make))

    def _either(self, side: str | None, statistic: str | None, null: HeadNull | None = None) -> np.ndarray:
        """Ratios [n_heads, n] of a side, or of each head's larger one."""
        if side is not None:
            return self.ratios(side, statistic, null)
        return np.fmax(self.ratios("query", statistic, null), self.ratios("key", statistic, null))
