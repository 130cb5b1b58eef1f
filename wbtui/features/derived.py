"""Derived columns that are not classes: flags of rows, ranks in the population and among noise, ids for text search."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from wbtui import schema
from wbtui.definitions import MaskDefinition
from wbtui.errors import StoreError, UsageError
from wbtui.features import classes
from wbtui.features.names import DATA, STORED, Name, resolve

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable

_BAD = schema.FLAG_BAD_DECODER | schema.FLAG_BAD_ENCODER
_ZERO = schema.FLAG_ZERO_DECODER | schema.FLAG_ZERO_ENCODER


def with_rows(mask: np.ndarray, rows: Iterable[int]) -> np.ndarray:
    """A copy of a mask with some rows set."""
    out = mask.copy()
    out[list(rows)] = True
    return out


def provisional_values(columns: Mapping[str, Any], definition: dict[str, Any]) -> dict[str, np.ndarray]:
    """A lone row's columns as arrays of the schema; None becomes NaN (-1 in integers).

    Raises:
        StoreError: a column that the product has not, or of another size.
    """
    out = {}
    for name, value in columns.items():
        if name == "unmasked":
            continue
        column = STORED.get(name)
        if column is None:
            raise StoreError(f"provisional column {name!r}", "a column of the product")
        like = schema.empty(column, 1, definition)[0]
        absent = np.nan if like.dtype.kind == "f" else -1 if like.dtype.kind == "i" else 0
        items = [absent if v is None else v for v in value] if isinstance(value, list) else value
        array = np.asarray(absent if items is None else items, dtype=like.dtype)
        if array.shape != like.shape:
            raise StoreError(f"provisional column {name!r} of shape {array.shape}", f"{like.shape}")
        out[name] = array
    return out


def row_column(table: FeatureTable, base: str) -> np.ndarray:
    """A column of whole rows: ``id`` or one of ``names.ROW_FLAGS``."""
    if base == "id":
        return np.arange(table.n, dtype=np.int64)
    if base == "computed":
        return table.computed
    if base in DATA:
        return _imported(table, base)
    if base == "provisional":
        return with_rows(np.zeros(table.n, dtype=bool), table.provisional)
    if base == "same":
        return classes.same_top(table.column("writes.top_ids"), table.column("reads.top_ids"))
    bits = {"nonfinite": _BAD, "zero": _ZERO, "no_reads": schema.FLAG_NO_READS}[base]
    return (table.column("flags") & bits) != 0


def _imported(table: FeatureTable, base: str) -> np.ndarray:
    """A column of data from files; ``dead`` is a density of 0."""
    if base == "dead":
        return table.column("density") == 0
    if table.labels is None:
        return np.full(table.n, np.nan, dtype=np.float32) if base == "density" else np.zeros(table.n, dtype=bool)
    return table.labels.density() if base == "density" else table.labels.labelled()


def row_known(table: FeatureTable, base: str) -> np.ndarray:
    """Where :func:`row_column` holds a real value."""
    if base in ("density", "dead"):
        return ~np.isnan(table.column("density"))
    if base in ("id", "computed", "provisional", "labelled"):
        return np.broadcast_to(np.True_, (table.n,))  # one byte for all rows
    if base == "same":
        return (table.column("writes.top_ids")[:, 0] >= 0) & (table.column("reads.top_ids")[:, 0] >= 0)
    return table.available


def kept_column(table: FeatureTable, base: str) -> np.ndarray:
    """What the user keeps: ``marked``, ``tagged``, ``noted`` as bool [n]; ``tags``, ``note`` and the first
    imported ``label`` as texts [n].

    Raises:
        UsageError: it cannot be read.
    """
    if base == "label":
        return _texts(table, base)
    kept = table.kept
    if kept.error:
        raise UsageError(f"{base} while notes cannot be read ({kept.error})", "notes")
    if base == "marked":
        return kept.marked(table.n)
    if base in ("tagged", "noted"):
        return (kept.with_tag if base == "tagged" else kept.with_note)(table.n, "*")
    return _texts(table, base)


def _texts(table: FeatureTable, base: str) -> np.ndarray:
    out = np.full(table.n, "", dtype=object)
    for feature, text in table.texts(base).items():
        if feature < table.n:
            out[feature] = text
    return out


def kept_known(table: FeatureTable, base: str) -> np.ndarray:
    """Where :func:`kept_column` says something: everywhere for yes-or-nos, where there is text for texts."""
    if base in ("tags", "note"):
        return (table.kept.with_tag if base == "tags" else table.kept.with_note)(table.n, "*")
    if base == "label":
        out = np.zeros(table.n, dtype=bool)
        out[[feature for feature in table.texts(base) if feature < table.n]] = True
        return out
    return np.ones(table.n, dtype=bool)


def kept_places(table: FeatureTable, base: str) -> np.ndarray:
    """The alphabetical place of each row's text, -1 without one: int64 [n], for sorting."""
    texts = table.texts(base)
    places = {text: at for at, text in enumerate(sorted(set(texts.values()), key=str.casefold))}
    out = np.full(table.n, -1, dtype=np.int64)
    for feature, text in texts.items():
        if feature < table.n:
            out[feature] = places[text]
    return out


def integer_known(table: FeatureTable, name: Name) -> np.ndarray:
    """Where a stored integer is real: its row is there, its side is finite, an id is not -1."""
    known = table.available
    if name.base == "overlap":
        return known & (table.column("overlap") >= 0)
    if name.side:
        known = known & np.isfinite(table.column(f"{name.side}.z_max"))
        if name.base.endswith("_id"):
            known = known & (table.column(name.text) >= 0)
    return known


def near_column(table: FeatureTable, name: Name) -> np.ndarray:
    """Cosine or number of the nearest feature; NaN or -1 where it is not known."""
    if table.neighbours is not None:
        return table.neighbours.column(name.text)
    return np.full(table.n, -1, np.int32) if name.base == "nn_id" else np.full(table.n, np.nan, np.float32)


def noise_samples(table: FeatureTable, inner: Name) -> list[np.ndarray]:
    """Ascending values of a metric over random directions, one array a kind of null; empty where there are none."""
    if inner.kind == "near":
        return [] if table.neighbours is None else [values for _, values in table.neighbours.noise(inner.text)]
    found = (sample.sorted(inner.side, inner.base) for sample in table.thresholds.used)
    return [noise for noise in found if len(noise)]


def rank_column(table: FeatureTable, prefix: str, inner: str) -> np.ndarray:
    """``percentile:inner``: share (0…100) of stored rows strictly below; ``null:inner``: tail (1 + b) / (N + 1)."""
    values = table.column(inner)
    known = table.known(inner)
    out = np.full(table.n, np.nan, dtype=np.float32)
    if prefix == "percentile":
        stored = known & table.computed
        population = values[stored]
        if not len(population):
            return out
        below = ranks(population)
        out[stored] = 100.0 * below / len(population)
        for row in table.provisional:  # judged by the population, no part of it
            if known[row]:
                out[row] = 100.0 * np.count_nonzero(population < values[row]) / len(population)
        return out
    numbers = values[known].astype(np.float64)
    tails = [
        (1 + len(noise) - np.searchsorted(noise, numbers, side="left")) / (len(noise) + 1)
        for noise in noise_samples(table, resolve(inner))
    ]
    if tails:
        out[known] = np.max(tails, axis=0)
    return out


def ranks(values: np.ndarray) -> np.ndarray:
    """How many values are strictly below each: int64 [n], without NaN in ``values``. One sort, no searches."""
    order = np.argsort(values)
    ordered = values[order]
    first = np.append(True, ordered[1:] != ordered[:-1])
    out = np.empty(len(values), dtype=np.int64)
    out[order] = np.maximum.accumulate(np.where(first, np.arange(len(values)), 0))
    return out


def percentile_of(table: FeatureTable, name: str, row: int) -> float:
    """One row of ``percentile:name`` without ranking the others."""
    known = table.known(name)
    if not known[row]:
        return float("nan")
    values = table.column(name)
    population = int(np.count_nonzero(known & table.computed))
    below = int(np.count_nonzero((values < values[row]) & known & table.computed))
    return 100.0 * below / population if population else float("nan")


def null_percentile(table: FeatureTable, name: str, row: int) -> tuple[float, str]:
    """See :meth:`FeatureTable.null_percentile`."""
    inner = resolve(name)
    if not (inner.kind == "near" and inner.base == "nn") and (inner.kind != "stored" or not inner.side):
        return float("nan"), "random directions have no such number"
    value = table.value(inner.text, row)
    if np.isnan(value):
        return float("nan"), "no value"
    worst: tuple[float, int, int] | None = None
    for noise in noise_samples(table, inner):
        reached = int(len(noise) - np.searchsorted(noise, value, side="left"))
        tail = (1 + reached, len(noise) + 1)
        if worst is None or tail[0] / tail[1] > worst[0]:
            worst = (tail[0] / tail[1], reached, len(noise))
    if worst is None:
        return float("nan"), "no null yet"
    tail_, reached, count = worst
    if reached == 0:
        return tail_, f"above all {count:,} directions of noise"
    return tail_, f"above {100 * (1 - reached / count):.1f} % of noise"


def mask_counts(neighbours: np.ndarray, flags: np.ndarray, definition: MaskDefinition) -> dict[str, int]:
    """How many tokens a mask drops and why: under-trained by neighbours, then special and padded ones."""
    crowded = np.asarray(neighbours) >= definition.count
    special = (flags & (schema.VOCAB_SPECIAL | schema.VOCAB_PADDED)) != 0
    return {
        "neighbours": int(crowded.sum()),
        "special": int((special & ~crowded).sum()),
        "total": int((crowded | special).sum()),
        "of": len(flags),
        "estimated": int(len(flags) > definition.exact_below),
    }
