"""Where a feature comes from and where it goes, by decoder cosines alone (Analyze Feature Flow, arXiv 2502.03032;
methods 2.2): ``s(P) = max_k cos(f, d_k^(P))``, followed from place to place. Pure rules; the products are elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from wbtui.errors import UsageError

CLASSES = ("carried", "processed", "newborn", "unexplained")


@dataclass(frozen=True)
class FlowThresholds:
    """What counts as high (methods 2.2): ``r`` for the stream before, ``m`` and ``a`` for the MLP and attention.

    Raises:
        UsageError: not cosines.
    """

    r: float = 0.5
    m: float = 0.25
    a: float = 0.25

    def __post_init__(self) -> None:
        for name, value in (("r", self.r), ("m", self.m), ("a", self.a)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
                raise UsageError(
                    f"threshold {name} {value!r}", "a cosine from 0 to 1", "0.5, 0.25 and 0.25 are the usual ones"
                )


def flow_class(r: float | None, m: float | None, a: float | None, bars: FlowThresholds) -> str:
    """The class of a feature by its best cosine with the stream before, the MLP's and the attention's features.

    None stands for a place without a dictionary. Without a dictionary of the layer's MLP or attention a low module
    score cannot be told from an unknown one, and the two classes that it would decide between are both named.
    """
    if r is None:
        return "unknown: no dictionary of the stream before"
    carried = r >= bars.r
    module = any(s is not None and s >= bar for s, bar in ((m, bars.m), (a, bars.a)))
    if module:
        return "processed" if carried else "newborn"
    if m is not None and a is not None:
        return "carried" if carried else "unexplained"
    return "carried or processed" if carried else "newborn or unexplained"


def best_of(count: int, tail: float) -> float:
    """How likely the best of ``count`` independent random directions is to score what one does with chance ``tail``."""
    if not math.isfinite(tail):
        return math.nan
    return -math.expm1(count * math.log1p(-min(tail, 1.0))) if tail < 1 else 1.0


def span(scores: list[float | None], bar: float) -> int:
    """How many steps of a chain hold: the first one below the bar ends it."""
    for at, score in enumerate(scores):
        if score is None or not score >= bar:
            return at
    return len(scores)
