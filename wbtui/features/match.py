"""Another dictionary: what of one SAE is found in another, from the nearest neighbours both ways.

A pair is *mutual* when each is the other's nearest. With a bar on the cosine (0.7 by default): *matched* features have
a mutual partner at or above it; *lost* ones have no feature of the other SAE at or above it at all, *new* ones are that
the other way round; a *split* is a feature that is the nearest of two or more features of the other SAE, each above
the bar. Shares stand beside those of random directions, which belong to neither SAE (methods 2.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wbtui.catalog.plan_match import MatchPlan
from wbtui.definitions import to_json
from wbtui.errors import StoreError, UsageError
from wbtui.features import classes
from wbtui.store.products import Product

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable

BAR = 0.7
SHARES = (0.7, 0.9)
KINDS = ("isotropic", "decoder_cov")
LISTS = ("matched", "lost", "new", "splits")
_COLUMNS = ("a.cos", "a.id", "b.cos", "b.id")


@dataclass(frozen=True)
class Split:
    """One feature that is many in the other SAE."""

    parent: int
    children: tuple[int, ...]
    """Nearest first."""
    cosines: tuple[float, ...]


class Matching:
    """A match product as it is read.

    Args:
        columns: of :func:`wbtui.analysis.match.mutual`, and of the assignment where it was asked for.
        a_name, b_name: addresses of the SAEs.
    """

    def __init__(self, columns: Mapping[str, np.ndarray], a_name: str, b_name: str) -> None:
        missing = [name for name in _COLUMNS if name not in columns]
        if missing:
            raise StoreError(f"a match without {missing[0]}", "the columns of this version", "compute it again")
        self.columns = columns
        self.a_name, self.b_name = a_name, b_name
        self.a_cos, self.a_id = np.asarray(columns["a.cos"]), np.asarray(columns["a.id"])
        self.b_cos, self.b_id = np.asarray(columns["b.cos"]), np.asarray(columns["b.id"])
        self.n_a, self.n_b = len(self.a_id), len(self.b_id)
        there = self.a_id >= 0
        self.mutual = there & (self.b_id[np.where(there, self.a_id, 0)] == np.arange(self.n_a))
        """bool [n_a]: each is the other's nearest."""

    @classmethod
    def open(cls, cache: Path, plan: MatchPlan) -> Matching:
        """The finished product of a plan, mapped.

        Raises:
            StoreError: not computed, or damaged.
        """
        columns = Product(cache, plan.product).columns()
        names = (f"{plan.model.name}@{plan.sae.name}", f"{plan.other_model.name}@{plan.other.name}")
        return cls({name: columns[name] for name in columns.names}, *names)

    @property
    def assigned(self) -> bool:
        """Whether the one-to-one pairing was computed."""
        return "assign.id" in self.columns

    def matched(self, bar: float = BAR) -> np.ndarray:
        """Features of ``a`` with a mutual partner at or above the bar, the nearest first."""
        rows = np.flatnonzero(self.mutual & (self.a_cos >= bar))
        return rows[np.lexsort((rows, -self.a_cos[rows]))]

    def lost(self, bar: float = BAR) -> np.ndarray:
        """Features of ``a`` that nothing in ``b`` comes near, the farthest first; without what has no direction."""
        return _far(self.a_cos, bar)

    def new(self, bar: float = BAR) -> np.ndarray:
        """Features of ``b`` that nothing in ``a`` comes near, the farthest first."""
        return _far(self.b_cos, bar)

    def splits(self, bar: float = BAR) -> list[Split]:
        """Features of ``a`` that are the nearest of two or more of ``b``'s at or above the bar; most parts first."""
        return _splits(self.b_id, self.b_cos, bar)

    def merges(self, bar: float = BAR) -> list[Split]:
        """Features of ``b`` that are the nearest of two or more of ``a``'s."""
        return _splits(self.a_id, self.a_cos, bar)

    def shares(self, side: str = "a") -> dict[str, Any]:
        """Shares of a side's features whose nearest in the other SAE is at or above 0.7 and 0.9, and of directions.

        Returns:
            dict: ``n`` (features with a direction), ``median``, ``above`` {bar: share}, ``mutual`` {bar: share, and
            ``any``}, ``random`` {kind: {median, p99, above, n}}.
        """
        cosines = self.a_cos if side == "a" else self.b_cos
        mutual = self.mutual if side == "a" else self._mutual_b()
        good = np.isfinite(cosines)
        n = int(good.sum())
        out: dict[str, Any] = {"n": n, "median": _median(cosines[good])}
        out["above"] = {f"{bar}": _share(good & (cosines >= bar), n) for bar in SHARES}
        out["mutual"] = {"any": _share(mutual, n)}
        out["mutual"] |= {f"{bar}": _share(mutual & (cosines >= bar), n) for bar in SHARES}
        out["random"] = {}
        for kind in KINDS:
            values = self.columns.get(f"null.{kind}.{side}")
            if values is None or not len(values):
                continue
            values = values[np.isfinite(values)]
            out["random"][kind] = {
                "n": len(values),
                "median": _median(values),
                "p99": float(np.quantile(values, 0.99)) if len(values) else None,
                "above": {f"{bar}": _share(values >= bar, len(values)) for bar in SHARES},
            }
        return out

    def _mutual_b(self) -> np.ndarray:
        out = np.zeros(self.n_b, dtype=bool)
        out[self.a_id[self.mutual]] = True
        return out

    def tail(self, cosine: float, side: str = "a") -> float:
        """Share of directions of neither SAE that come as near: (1 + b) / (N + 1), the larger over kinds."""
        tails = []
        for kind in KINDS:
            values = self.columns.get(f"null.{kind}.{side}")
            if values is not None and len(values):
                tails.append((1 + int((values >= cosine).sum())) / (len(values) + 1))
        return max(tails) if tails else float("nan")

    def rows(self, which: str, bar: float = BAR) -> list[dict[str, Any]]:
        """One of :data:`LISTS` as plain rows: {a, b, cos, mutual} or, for splits, {a, b: [..], cos: [..]}.

        Raises:
            UsageError: no such list.
        """
        if which == "matched":
            return [self._row(int(a)) for a in self.matched(bar)]
        if which == "lost":
            return [self._row(int(a)) for a in self.lost(bar)]
        if which == "new":
            return [
                {"b": int(b), "a": int(self.b_id[b]), "cos": float(self.b_cos[b]), "mutual": bool(self._mutual_b()[b])}
                for b in self.new(bar)
            ]
        if which == "splits":
            return [{"a": s.parent, "b": list(s.children), "cos": list(s.cosines)} for s in self.splits(bar)]
        raise UsageError(f"list {which!r}", "one of " + ", ".join(LISTS))

    def _row(self, a: int) -> dict[str, Any]:
        return {"a": a, "b": int(self.a_id[a]), "cos": float(self.a_cos[a]), "mutual": bool(self.mutual[a])}

    def assignment(self) -> dict[str, Any] | None:
        """The one-to-one pairing in short: pairs, mean cosine, shares; None where it was not asked for."""
        if not self.assigned:
            return None
        cosines = self.columns["assign.cos"]
        good = np.isfinite(cosines)
        n = int(good.sum())
        same = self.columns["assign.id"][self.mutual] == self.a_id[self.mutual]
        return {
            "pairs": n,
            "mean": float(cosines[good].mean()) if n else None,
            "above": {f"{bar}": _share(good & (cosines >= bar), n) for bar in SHARES},
            "mutual_kept": _share(same, len(same)),
        }


def _far(cosines: np.ndarray, bar: float) -> np.ndarray:
    rows = np.flatnonzero(cosines < bar)
    return rows[np.lexsort((rows, cosines[rows]))]


def _splits(parents: np.ndarray, cosines: np.ndarray, bar: float) -> list[Split]:
    children = np.flatnonzero((parents >= 0) & (cosines >= bar))
    order = children[np.lexsort((children, -cosines[children], parents[children]))]
    if not len(order):
        return []
    owners = parents[order]
    starts = np.flatnonzero(np.append(True, owners[1:] != owners[:-1]))
    out = []
    for start, stop in zip(starts, np.append(starts[1:], len(order)), strict=True):
        if stop - start > 1:
            part = order[start:stop]
            out.append(Split(int(owners[start]), tuple(int(c) for c in part), tuple(float(cosines[c]) for c in part)))
    out.sort(key=lambda s: (-len(s.children), s.parent))
    return out


def class_differences(matching: Matching, a: FeatureTable, b: FeatureTable, bar: float = BAR) -> dict[str, Any]:
    """How the classes of what is written differ (E1).

    Returns:
        dict: ``a``, ``b``: shares of classes of all features; ``matched``, ``lost`` (of ``a``), ``new`` (of ``b``): of
        these alone; ``kept``: of the matched pairs, the share with one class on both sides, and ``by_chance``: what
        that share would be if classes were dealt out anew among the pairs.
    """
    a_class, b_class = a.column("writes.class"), b.column("writes.class")
    matched = matching.matched(bar)
    partners = matching.a_id[matched]
    left, right = a_class[matched], b_class[partners]
    known = (left != classes.UNKNOWN) & (right != classes.UNKNOWN)
    kept = _share(left[known] == right[known], int(known.sum()))
    chance = None
    if known.any():
        names = range(len(classes.CLASS_NAMES))
        chance = float(sum((left[known] == c).mean() * (right[known] == c).mean() for c in names))
    return {
        "a": _class_shares(a_class),
        "b": _class_shares(b_class),
        "matched": _class_shares(left),
        "lost": _class_shares(a_class[matching.lost(bar)]),
        "new": _class_shares(b_class[matching.new(bar)]),
        "kept": kept,
        "by_chance": chance,
    }


def summary(
    matching: Matching,
    plan: MatchPlan,
    tables: tuple[FeatureTable, FeatureTable] | None = None,
    control: Matching | None = None,
    bar: float = BAR,
) -> dict[str, Any]:
    """Everything of a match as plain JSON data, schema ``wbtui.match/1``; lists are counted, not given.

    Args:
        matching: the match.
        plan: what it was made from.
        tables: of both SAEs, for classes.
        control: the match of the same ``a`` with a dictionary that learned nothing.
        bar: on the cosine, for the lists.
    """
    out: dict[str, Any] = {
        "schema": "wbtui.match/1",
        "a": matching.a_name,
        "b": matching.b_name,
        "definition": to_json(plan.definition),
        "product": plan.product.key,
        "warnings": list(plan.warnings),
        "note": "cosine of decoder rows in the residual stream; thresholds are ours",
        "bar": bar,
        "features": {"a": matching.n_a, "b": matching.n_b},
        "from_a": matching.shares("a"),
        "from_b": matching.shares("b"),
        "counts": {
            "mutual": int(matching.mutual.sum()),
            "matched": len(matching.matched(bar)),
            "lost": len(matching.lost(bar)),
            "new": len(matching.new(bar)),
            "splits": len(matching.splits(bar)),
            "merges": len(matching.merges(bar)),
        },
        "assignment": matching.assignment(),
        "classes": class_differences(matching, *tables, bar) if tables is not None else None,
        "control": None,
    }
    if control is not None:
        out["control"] = {"b": control.b_name, "from_a": control.shares("a")}
    return out


def _class_shares(codes: np.ndarray) -> dict[str, float]:
    known = codes[codes != classes.UNKNOWN]
    return {
        name: round(float((known == code).mean()), 6) if len(known) else 0.0
        for code, name in enumerate(classes.CLASS_NAMES)
    }


def _share(mask: np.ndarray, n: int) -> float | None:
    return round(float(np.count_nonzero(mask)) / n, 6) if n else None


def _median(values: np.ndarray) -> float | None:
    return float(np.median(values)) if len(values) else None
