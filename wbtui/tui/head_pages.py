"""What the service tells of one feature in a layer's heads on demand: kept while the page is open. Plain data."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

KEPT = 64
"""Pages remembered: going back to a feature costs nothing."""


@dataclass(frozen=True)
class Partner:
    """One pair: the other feature, its score, and that score at each offset of the page."""

    feature: int
    score: float
    distance: tuple[float, ...] = ()


@dataclass(frozen=True)
class Written:
    """What one head writes when it attends to one feature.

    Attributes:
        tokens, against: (token id, z). readers, becomes: (feature of the target, value). token_z: the best token's z.
        target: the SAE whose features readers and becomes are; None without one.
    """

    tokens: tuple[tuple[int, float], ...]
    against: tuple[tuple[int, float], ...]
    readers: tuple[tuple[int, float], ...]
    becomes: tuple[tuple[int, float], ...]
    target: str | None


class HeadPage:
    """One feature in all heads of a layer, as :func:`wbtui.compute.attention_lone.head_page` answers."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        self.answer = answer
        self.offsets: tuple[int, ...] = tuple(answer["offsets"])
        self.target: str | None = answer["target"]
        self._heads: Sequence[Mapping[str, Any]] = answer["heads"]

    @property
    def absent(self) -> bool:
        """Whether the feature has no direction: no head says anything of it."""
        return bool(self.answer["absent"])

    def partners(self, head: int, side: str) -> list[Partner]:
        """The strongest partners of a side, best first; exact over all features."""
        if self.absent:
            return []
        return [
            Partner(p["feature"], _number(p["score"]), tuple(_number(v) for v in p["distance"]))
            for p in self._heads[head][side]
        ]

    def written(self, head: int) -> Written | None:
        """What the head writes; None where the feature has no direction."""
        if self.absent:
            return None
        ov = self._heads[head]["ov"]

        def tokens(name: str) -> tuple[tuple[int, float], ...]:
            return tuple((t["id"], _number(t["z"])) for t in ov.get(name, ()))

        def features(name: str) -> tuple[tuple[int, float], ...]:
            return tuple((t["feature"], _number(t["value"])) for t in ov.get(name, ()))

        return Written(tokens("tokens"), tokens("against"), features("readers"), features("becomes"), self.target)


class HeadPages:
    """Pages by (layer, feature), and why some could not be made."""

    def __init__(self) -> None:
        self._found: OrderedDict[tuple[int, int], HeadPage] = OrderedDict()
        self.failures: dict[tuple[int, int], str] = {}

    def put(self, layer: int, feature: int, answer: Mapping[str, Any]) -> None:
        """Keep an answer; the longest unseen goes."""
        self._found[layer, feature] = HeadPage(answer)
        self._found.move_to_end((layer, feature))
        self.failures.pop((layer, feature), None)
        while len(self._found) > KEPT:
            self._found.popitem(last=False)

    def get(self, layer: int, feature: int) -> HeadPage | None:
        """A page, where it is there."""
        page = self._found.get((layer, feature))
        if page is not None:
            self._found.move_to_end((layer, feature))
        return page

    def missing(self, layer: int, features: Sequence[int]) -> list[int]:
        """Those of the features that are neither there nor known to fail, each once, in order."""
        return [f for f in dict.fromkeys(features) if (layer, f) not in self._found and (layer, f) not in self.failures]

    def clear(self) -> None:
        """Forget all."""
        self._found.clear()
        self.failures.clear()


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
