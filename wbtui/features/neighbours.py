"""The nearest features of one SAE, here and in the SAEs before and after, each comparison opened once it is there."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wbtui.catalog.plan_neighbours import SAME, Pair, plan_neighbours, roles
from wbtui.catalog.saes import list_saes, stream_position
from wbtui.definitions import NeighboursDefinition
from wbtui.errors import StoreError, WbtuiError
from wbtui.schema_neighbours import DEC, ENC, KINDS, neighbours_columns, null_columns
from wbtui.store.fingerprints import is_remembered
from wbtui.store.products import Product

if TYPE_CHECKING:
    from wbtui.catalog.models import ModelInfo
    from wbtui.catalog.saes import SaeInfo

_NAME = re.compile(r"nn(_id)?(?:\.(prev|next))?(?:\.(enc))?", re.ASCII)
_ROLES = {"": SAME, "prev": "before", "next": "after"}
PLACES = {"": "in this SAE", "prev": "in the SAE before it in the stream", "next": "in the SAE after it in the stream"}
BAR = 99.0
"""Percentile of random directions' best cosine: the line of the noise."""


@dataclass(frozen=True)
class Neighbour:
    """One near feature."""

    sae: str
    feature: int
    cosine: float
    inside_null: bool
    """Whether a random direction comes as near (99 % line); False where there is no null yet."""


class NearTable:
    """One comparison: columns and noise.

    Args:
        other: the other SAE; role: ``same``, ``before``, ``after`` or empty.
        columns: ``dec.cos``, ``dec.id``, ``enc.cos``, ``enc.id``, each ``[d_sae, k]``.
        nulls: kind of null -> ``dec.best``, ``enc.best``, each ``[n]``.
    """

    def __init__(self, other: SaeInfo, role: str, columns: Any, nulls: Mapping[str, Any]) -> None:
        self.other = other
        self.role = role
        self.columns = columns
        self.nulls = dict(nulls)
        self._sorted: dict[tuple[str, str], np.ndarray] = {}

    def noise(self, kind: str) -> list[tuple[str, np.ndarray]]:
        """(kind of null, its best cosines ascending) for ``dec`` or ``enc``; empty where there is none."""
        out = []
        for null, columns in self.nulls.items():
            if (null, kind) not in self._sorted:
                values = np.asarray(columns[f"{kind}.best"], dtype=np.float64)
                self._sorted[null, kind] = np.sort(values[np.isfinite(values)])
            if len(self._sorted[null, kind]):
                out.append((null, self._sorted[null, kind]))
        return out

    def bar(self, kind: str) -> float:
        """99 % of random directions' best cosines lie below it, the larger over kinds of null; NaN without one."""
        return max((float(np.percentile(values, BAR)) for _, values in self.noise(kind)), default=float("nan"))

    def listed(self, row: int, kind: str = DEC) -> list[Neighbour]:
        """The nearest features of a row, nearest first; empty where there are none."""
        bar = self.bar(kind)
        cosines, ids = self.columns[f"{kind}.cos"][row], self.columns[f"{kind}.id"][row]
        return [
            Neighbour(self.other.name, int(i), float(c), bool(c <= bar))
            for c, i in zip(cosines, ids, strict=True)
            if i >= 0
        ]


class NeighbourShelf:
    """The comparisons of one SAE with itself and others.

    Args:
        cache: product cache; model, sae: whose; definition: of the comparisons.
    """

    def __init__(
        self, cache: Path, model: ModelInfo, sae: SaeInfo, definition: NeighboursDefinition | None = None
    ) -> None:
        self.definition = definition or NeighboursDefinition()
        self.sae = sae
        self.n = sae.d_sae
        self.failure = ""
        """Why nothing could be planned or opened, in words."""
        self.others: tuple[tuple[str, SaeInfo], ...] = ()
        """(role, SAE) of all that can be compared with; known after the first look."""
        self.looked = False
        self._where = (cache, model)
        self._pairs: dict[str, Pair] = {}
        self._made: dict[str, NearTable] = {}
        self._lock = threading.Lock()

    @classmethod
    def of(cls, sae: SaeInfo, tables: Sequence[NearTable]) -> NeighbourShelf:
        """A shelf of tables in memory."""
        shelf = cls.__new__(cls)
        shelf.definition, shelf.sae, shelf.n, shelf.failure = NeighboursDefinition(), sae, sae.d_sae, ""
        shelf.looked = True
        shelf.others = tuple((t.role, t.other) for t in tables)
        shelf._where, shelf._pairs = None, {}  # type: ignore[assignment]
        shelf._made = {t.other.path: t for t in tables}
        shelf._lock = threading.Lock()
        return shelf

    def look(self) -> bool:
        """Plan what is not planned and take in what finished; True if something did. Reads files: not for a UI thread.

        The SAE itself and those beside it are always planned. Others only where their fingerprint is remembered, as it
        is once they were compared: a first fingerprint reads the whole file.
        """
        self.looked = True
        if self._where is None:
            return False
        cache, model = self._where
        with self._lock:
            try:
                if not self.others:
                    self.others = tuple(roles(list_saes(model), self.sae))
                wanted = [
                    s for role, s in self.others
                    if s.path not in self._pairs
                    and (role or all(is_remembered(file, cache / "fingerprints") for file in s.files))
                ]  # fmt: skip
                if wanted:
                    plan = plan_neighbours(model, self.sae, self.definition, cache, among=wanted)
                    self._pairs.update({pair.other.path: pair for pair in plan.pairs})
                changed = [self._take(cache, pair) for pair in self._pairs.values()]
                self.failure = ""
            except (WbtuiError, OSError) as error:
                self.failure = error.line() if isinstance(error, WbtuiError) else str(error)
                return False
        return any(changed)

    def _take(self, cache: Path, pair: Pair) -> bool:
        there = self._made.get(pair.other.path)
        if there is not None and len(there.nulls) == len(pair.nulls):
            return False
        product = Product(cache, pair.product)
        if there is None and product.state != "complete":
            return False
        nulls = {}
        for spec in pair.nulls:
            null = Product(cache, spec)
            if null.state == "complete":
                nulls[str(spec.identity["null"]["kind"])] = _checked(null, list(null_columns()))
        if there is not None and len(nulls) == len(there.nulls):
            return False
        columns = there.columns if there is not None else _checked(product, list(neighbours_columns()))
        self._made[pair.other.path] = NearTable(pair.other, pair.role, columns, nulls)
        return True

    # -- what is there -------------------------------------------------------------------------------------------------

    def tables(self) -> list[NearTable]:
        """The comparisons that are there, by stream position."""
        return sorted(self._made.values(), key=lambda t: (stream_position(t.other), t.role != SAME, t.other.name))

    def missing(self, *, beside: bool = True) -> list[SaeInfo]:
        """SAEs whose comparison is not there: of those compared by default, or of all."""
        return [s for role, s in self.others if (role or not beside) and s.path not in self._made]

    def other(self, role: str) -> SaeInfo | None:
        """The SAE of a role: ``same``, ``before``, ``after``; None where there is none."""
        return next((s for r, s in self.others if r == role), None)

    def table(self, role: str) -> NearTable | None:
        """The comparison of a role, None where it is not there."""
        found = self.other(role)
        return None if found is None else self._made.get(found.path)

    def column(self, name: str) -> np.ndarray:
        """A metric ``nn[.prev|.next][.enc]`` (float32, NaN where there is none) or ``nn_id…`` (int32, -1)."""
        is_id, place, kind = parts_of(name)
        if not self.looked:
            self.look()
        table = self.table(_ROLES[place])
        if table is None:
            return np.full(self.n, -1, np.int32) if is_id else np.full(self.n, np.nan, np.float32)
        return np.asarray(table.columns[f"{kind}.{'id' if is_id else 'cos'}"][:, 0])

    def noise(self, name: str) -> list[tuple[str, np.ndarray]]:
        """(kind of null, ascending values) of a cosine's name; empty for ids and where there is none."""
        is_id, place, kind = parts_of(name)
        table = self.table(_ROLES[place])
        return [] if is_id or table is None else table.noise(kind)

    def bar(self, name: str) -> float:
        """The line of the noise of a cosine's name."""
        _, place, kind = parts_of(name)
        table = self.table(_ROLES[place])
        return float("nan") if table is None else table.bar(kind)


def _checked(product: Product, names: list[str]) -> Any:
    columns = product.columns()
    missing = [name for name in names if name not in columns]
    if missing:
        raise StoreError(f"{product.path}: no column {missing[0]}", "the columns of this version", "compute it again")
    return columns


def canonical(name: str) -> str | None:
    """The canonical spelling of a neighbour's metric, None for anything else."""
    return name if _NAME.fullmatch(name) else None


def near_names() -> tuple[str, ...]:
    """Every name: cosine and number of the nearest feature, here, before, after, by decoder and by encoder."""
    return tuple(
        f"{base}{'.' + place if place else ''}{'.enc' if kind == ENC else ''}"
        for kind in KINDS
        for place in PLACES
        for base in ("nn", "nn_id")
    )


def parts_of(name: str) -> tuple[bool, str, str]:
    """(whether it is a feature's number, place: empty, ``prev`` or ``next``, ``dec`` or ``enc``)."""
    match = _NAME.fullmatch(name)
    assert match is not None, name
    return bool(match[1]), match[2] or "", match[3] or DEC


def meaning(name: str) -> str:
    """What a name means, in words."""
    is_id, place, kind = parts_of(name)
    of = "encoder columns" if kind == ENC else "decoder rows"
    if is_id:
        return f"number of the nearest feature {PLACES[place]}, by the cosine of {of}"
    return (
        f"largest cosine of {of}, in the residual stream, with another feature {PLACES[place]}; "
        "compare with 99 % of random directions' best (null:" + name + " gives the tail)"
    )
