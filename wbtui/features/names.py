"""Metric names: one spelling in columns, filter, JSON, CSV and help.

``writes.z_max`` is the canonical form of a number of one side, ``semantic.writes`` that of a yes-or-no of one side.
Without a side, ``writes`` is meant. Both orders are accepted everywhere. ``percentile:NAME`` is a number's place in the
SAE's own population, ``null:NAME`` its place among random directions.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import lru_cache

from wbtui.errors import UsageError
from wbtui.features import neighbours
from wbtui.features.head_parts import STATISTICS
from wbtui.features.head_shelf import canonical
from wbtui.schema import side_columns, tokens_columns

ALL_SIDES = ("writes", "against", "reads")
BOTH_SIDES = ("either", "both")

STORED = tokens_columns()
NUMBERS = frozenset(name for name, column in STORED.items() if not column.width)
"""Stored columns of one number a row."""

SIDED_NUMBERS = ("evidence", "first_view", "n_words", "n_eff")
SIDED_FLAGS = ("semantic", "coherent", "strict", "single", "diffuse", "none", "promotes", "unclear")
KEPT_FLAGS = ("marked", "tagged", "noted")
"""What the user keeps of a feature, as yes-or-nos; ``tags`` and ``note`` are their texts."""
ROW_FLAGS = ("same", "computed", "provisional", "nonfinite", "zero", "no_reads", "dead", "labelled", *KEPT_FLAGS)
KEPT_TEXTS = ("tags", "note")
ROW_TEXTS = (*KEPT_TEXTS, "label")
ROW_NUMBERS = ("id", "density")
DATA = ("density", "dead", "labelled")
"""What comes from imported files: data, not weights."""
CLASS = "class"
ALIASES = {"kind": CLASS, "#": "id", "feature": "id", "delta_H": "delta_h", "N_eff": "n_eff"}

_SIDED_STORED = {side: frozenset(c.name for c in side_columns(side)) for side in ALL_SIDES}


@dataclass(frozen=True)
class Name:
    """A name taken apart.

    ``kind``: stored, list, number, flag, class, row, head, near, rank, text; rows have no ``side``.
    """

    text: str
    kind: str
    base: str
    side: str = ""

    @property
    def numeric(self) -> bool:
        """Whether it is a number that can be compared and ranked."""
        return self.kind in ("stored", "number", "rank", "head", "near") or (
            self.kind == "row" and self.base in ROW_NUMBERS
        )

    @property
    def boolean(self) -> bool:
        """Whether it is a yes-or-no."""
        return self.kind == "flag" or (self.kind == "row" and self.base in ROW_FLAGS)


@lru_cache(maxsize=4096)
def resolve(name: str) -> Name:
    """The canonical name.

    Raises:
        UsageError: unknown; the nearest names are offered.
    """
    found = _resolve(name)
    if found is None and name.startswith("head:"):
        raise UsageError(
            f"no metric {name!r}",
            "head:L4.H2 (layer 4, head 2), with .query or .key, with one of peak, " + ", ".join(STATISTICS[1:]),
        )
    if found is None:
        near = nearest(name)
        raise UsageError(
            f"no metric {name!r}",
            "one of " + ", ".join(near) if near else "a metric name",
            "`D` lists and explains all",
        )
    return found


def is_name(name: str) -> bool:
    """Whether ``name`` is a metric's name."""
    return _resolve(name) is not None


def nearest(name: str, n: int = 3) -> list[str]:
    """Known names that look like ``name``, nearest first."""
    return difflib.get_close_matches(name.casefold(), _all_spellings(), n=n, cutoff=0.6)


@lru_cache(maxsize=1)
def scalar_names() -> tuple[str, ...]:
    """Every canonical name that has one value a row, without ranks."""
    out = ["id", *(f"{side}.{CLASS}" for side in ALL_SIDES)]
    out += [f"{side}.{base}" for base in SIDED_NUMBERS for side in ALL_SIDES]
    out += [f"{base}.{side}" for base in SIDED_FLAGS for side in (*ALL_SIDES, *BOTH_SIDES)]
    out += [*ROW_FLAGS, "density", *ROW_TEXTS]
    out += [name for name in STORED if name in NUMBERS]
    out += neighbours.near_names()
    return tuple(out)


@lru_cache(maxsize=1)
def _all_spellings() -> tuple[str, ...]:
    short = {text.removeprefix("writes.").removesuffix(".writes") for text in scalar_names()}
    return (*sorted(short), *sorted(set(scalar_names()) - short), *sorted(ALIASES))


def _resolve(name: str) -> Name | None:
    for prefix in ("percentile", "null"):
        if name.startswith(prefix + ":"):
            inner = _resolve(name[len(prefix) + 1 :])
            if inner is None or not inner.numeric or inner.kind in ("rank", "row"):
                return None
            near = inner.kind == "near" and inner.base == "nn"
            if prefix == "null" and not near and not (inner.kind == "stored" and inner.side):
                return None  # random directions have no d_norm, class or evidence of their own
            return Name(f"{prefix}:{inner.text}", "rank", prefix, inner.text)
    if name.startswith("head:"):
        text = canonical(name)
        return Name(text, "head", text) if text else None
    if neighbours.canonical(name):
        return Name(name, "near", name.partition(".")[0])
    name = ALIASES.get(name, name)
    if name in ROW_FLAGS or name in ROW_NUMBERS:
        return Name(name, "row", name)
    if name in ROW_TEXTS:
        return Name(name, "text", name)
    if name in STORED and "." not in name:
        return Name(name, "stored", name)
    head, dot, tail = name.partition(".")
    if not dot:
        side, base = "writes", name
    elif head in (*ALL_SIDES, *BOTH_SIDES):
        side, base = head, ALIASES.get(tail, tail)
    else:
        side, base = tail, ALIASES.get(head, head)
    if side in ALL_SIDES:
        if base in _SIDED_STORED[side]:
            text = f"{side}.{base}"
            return Name(text, "stored" if text in NUMBERS else "list", base, side)
        if base in SIDED_NUMBERS:
            return Name(f"{side}.{base}", "number", base, side)
        if base == CLASS:
            return Name(f"{side}.{CLASS}", "class", CLASS, side)
    if base in SIDED_FLAGS and side in (*ALL_SIDES, *BOTH_SIDES):
        return Name(f"{base}.{side}", "flag", base, side)
    return None
