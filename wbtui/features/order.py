"""Sorting rows by several columns: NaN last whichever way, ties by feature number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from wbtui.errors import UsageError
from wbtui.features.derived import kept_places
from wbtui.features.names import resolve

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable

WORD_KEYS = ("writes", "reads", "against")
"""Sides as sort keys: alphabetical by the best word."""


def order(table: FeatureTable, keys: Sequence[tuple[str, bool]], rows: np.ndarray | None = None) -> np.ndarray:
    """Rows in the order of some columns.

    Args:
        table: the rows.
        keys: (name, descending), the most important first; a side's name alone sorts by its best word.
        rows: feature numbers to sort, ascending; all by default.

    Returns:
        int64 feature numbers. What has no value (NaN, absent, unknown class) comes last, ascending or descending; equal
        rows stand by number.

    Raises:
        UsageError: an unknown name, or one that has no single value a row.
    """
    rows = np.arange(table.n, dtype=np.int64) if rows is None else np.asarray(rows, dtype=np.int64)
    arrays = [_key(table, name, descending, rows) for name, descending in keys]
    return rows[sort_keys(arrays, len(rows))]


def sort_keys(keys: Sequence[np.ndarray], n: int) -> np.ndarray:
    """Positions that sort by the first key, then the next, then by position; NaN last.

    Stable sorts of small integers are radix sorts. A float key is sorted the fast, unstable way and its runs of equals
    are mended: that is several times faster on a million distinct values.
    """
    if not keys:
        return np.arange(n)
    first, rest = keys[0], keys[1:]
    if first.dtype.itemsize <= 2:
        if not rest:
            return np.argsort(first, kind="stable")
        inner = sort_keys(rest, n)
        return inner[np.argsort(first[inner], kind="stable")]
    out = np.argsort(first)
    values = first[out]
    equal = values[1:] == values[:-1]
    if values.dtype.kind == "f":
        equal |= np.isnan(values[1:]) & np.isnan(values[:-1])
    if not equal.any():
        return out
    tied = np.zeros(n, dtype=bool)
    tied[1:] |= equal
    tied[:-1] |= equal
    places = np.flatnonzero(tied)
    runs = np.cumsum(np.append(True, ~equal))[places]
    members = np.sort(out[places]) if len(places) == n else out[places]
    if len(places) == n:  # everything ties with something: order members by run through the key itself
        runs = np.searchsorted(_distinct(values), first[members], side="left")
    inner = np.lexsort((members, *[key[members] for key in reversed(rest)], runs))
    out[places] = members[inner]
    return out


def _distinct(values: np.ndarray) -> np.ndarray:
    keep = np.append(True, (values[1:] != values[:-1]) & ~(np.isnan(values[1:]) & np.isnan(values[:-1])))
    return values[keep]


def _key(table: FeatureTable, name: str, descending: bool, rows: np.ndarray) -> np.ndarray:
    """An ascending key with NaN (or the largest integer) for what has no value."""
    if name in WORD_KEYS:
        if table.vocab is None:
            return np.zeros(len(rows), dtype=np.int8)
        ids = table.top_ids(name, 1)[0][rows]
        known = ids < table.vocab.n
        places = table.vocab.ranks()[np.where(known, ids, 0)] if table.vocab.n else ids
        return np.where(known, -places if descending else places, np.iinfo(np.int32).max)
    resolved = resolve(name)
    if resolved.kind == "list":
        raise UsageError(
            f"sort by {name!r}, a list", "a name with one value a row", f"{resolved.side} sorts by the best word"
        )
    texts = resolved.kind == "text"
    values = (kept_places(table, resolved.base) if texts else table.column(name))[rows]
    if values.dtype.kind == "f":
        return -values if descending else values
    known = table.known(name)[rows]
    if values.dtype.itemsize == 1:
        small = values.astype(np.int16)
        return np.where(known, -small if descending else small, np.int16(np.iinfo(np.int16).max))
    wide = values.astype(np.int64)
    return np.where(known, -wide if descending else wide, np.iinfo(np.int64).max)
