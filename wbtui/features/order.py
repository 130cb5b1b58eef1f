"""Sorting rows by several columns: NaN last whichever way, ties by feature number.

A sort is made once for a version of the table and kept; a filter then takes its rows out of the order that is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from wbtui.errors import UsageError
from wbtui.features.derived import kept_places
from wbtui.features.names import KEPT_FLAGS, resolve

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable

WORD_KEYS = ("writes", "reads", "against")
"""Sides as sort keys: alphabetical by the best word."""
ORDERS_KEPT = 2
"""Orders of one table that are remembered, 4 bytes a row each."""
FEW = 16
"""Where at most one row of so many is asked for, those are sorted by themselves."""
BLOCK = 16_384
LAST = np.uint32(0xFFFF_FFFF)
"""The place of what has no value."""


def order(table: FeatureTable, keys: Sequence[tuple[str, bool]], rows: np.ndarray | None = None) -> np.ndarray:
    """Rows in the order of some columns.

    Args:
        table: the rows.
        keys: (name, descending), the most important first; a side's name alone sorts by its best word.
        rows: which: bool [n], or feature numbers, ascending; all by default.

    Returns:
        Feature numbers, int32, not to be written to. What has no value (NaN, absent, unknown class) comes last,
        ascending or descending; equal rows stand by number.

    Raises:
        UsageError: an unknown name, or one that has no single value a row.
    """
    if rows is None:
        return _order_of_all(table, tuple(keys))
    mask = rows if rows.dtype == bool else None
    count = len(rows) if mask is None else int(np.count_nonzero(mask))
    if not keys or count * FEW <= table.n:
        few = (rows if mask is None else np.flatnonzero(mask)).astype(np.int32)
        return few[sort_keys([_key(table, name, descending, few) for name, descending in keys], count)]
    everything = _order_of_all(table, tuple(keys))
    if mask is None:
        mask = np.zeros(table.n, dtype=bool)
        mask[rows] = True
    return everything[np.flatnonzero(gathered(mask, everything))]


def _order_of_all(table: FeatureTable, keys: tuple[tuple[str, bool], ...]) -> np.ndarray:
    """Every row in order, remembered while nothing that decides it has changed."""
    kept: dict[Any, tuple[tuple[Any, ...], np.ndarray]] = table.orders
    stamp = _stamp(table, keys)
    found = kept.pop(keys, None)
    if found is not None and len(found[0]) == len(stamp) and all(map(_same, found[0], stamp)):
        out = found[1]
    else:
        out = sort_keys([_key(table, name, descending, None) for name, descending in keys], table.n)
        out.flags.writeable = False
    while len(kept) >= ORDERS_KEPT:
        kept.pop(next(iter(kept)), None)
    kept[keys] = (stamp, out)
    return out


def _stamp(table: FeatureTable, keys: tuple[tuple[str, bool], ...]) -> tuple[Any, ...]:
    """What an order rests on: the table's state, and what changes without it (kept things, heads, neighbours)."""
    parts: list[Any] = [table.state]
    for name, _ in keys:
        if name in WORD_KEYS:
            continue
        resolved = resolve(name)
        if resolved.kind == "text" or resolved.base in KEPT_FLAGS:
            parts.append(table.kept)
        elif resolved.kind in ("head", "near"):
            parts.append(table.column(name))
    return tuple(parts)


def _same(a: object, b: object) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):  # columns that are made anew at each call
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    return a is b


def sort_keys(keys: Sequence[np.ndarray], n: int) -> np.ndarray:
    """Positions (int32) that sort by the first key, then the next, then by position; NaN last.

    Key and position are packed in one 64-bit number each: numpy sorts those with the machine's vector instructions,
    and no two are equal, so its quick unstable sort is stable. Keys that do not fit beside each other are sorted by
    one after another, the last first.
    """
    below = max(1, (n - 1).bit_length())
    out: np.ndarray | None = None
    packed: np.ndarray | None = None
    used = below
    for key in reversed(keys):
        place = places(key)
        bits = int(place.max(initial=0)).bit_length()
        if packed is not None and used + bits > 64:
            out, packed, used = _sorted(packed, below, out), None, below
        fresh = packed is None
        if packed is None:
            packed = np.empty(n, dtype=np.uint64)
        rows = place if out is None else gathered(place, out)
        for start in range(0, n, BLOCK):  # of 8 bytes a row nothing is made but what is sorted
            part = packed[start : start + BLOCK]
            if fresh:
                part[:] = np.arange(start, start + len(part), dtype=np.uint64)
            wide = rows[start : start + BLOCK].astype(np.uint64)
            wide <<= np.uint64(used)
            part |= wide
        used += bits
    return np.arange(n, dtype=np.int32) if packed is None else _sorted(packed, below, out)


def _sorted(packed: np.ndarray, below: int, before: np.ndarray | None) -> np.ndarray:
    """The positions in the lowest ``below`` bits, in order; ``before`` is what they are positions in."""
    packed.sort()
    at = np.empty(len(packed), dtype=np.int32)
    mask = np.uint64((1 << below) - 1)
    for start in range(0, len(packed), BLOCK):
        at[start : start + BLOCK] = packed[start : start + BLOCK] & mask
    return at if before is None else gathered(before, at)


def gathered(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """``values[at]`` a block at a time: numpy widens int32 positions, and a block of those stays in the cache."""
    out = np.empty(len(at), dtype=values.dtype)
    for start in range(0, len(at), BLOCK):
        np.take(values, at[start : start + BLOCK], out=out[start : start + BLOCK], mode="clip")
    return out


def places(key: np.ndarray) -> np.ndarray:
    """A key as uint32 that rises with it; NaN highest, -0.0 as 0.0, numbers too wide for 32 bits by their rank."""
    if key.dtype == np.uint32:
        return key
    if key.dtype == np.float32:
        bits = (key + np.float32(0)).view(np.uint32)  # -0.0 becomes 0.0; from here on in place
        negative = bits >> np.uint32(31)
        bits ^= (np.uint32(0) - negative) | np.uint32(0x8000_0000)  # all bits of a negative, the sign of the others
        bits[np.isnan(key)] = LAST
        return bits
    if key.dtype.kind in "iub" and len(key):
        low, high = int(key.min()), int(key.max())
        if high - low < int(LAST):
            return (key.astype(np.int64) - low).astype(np.uint32)
    if key.dtype == np.float16:
        return places(key.astype(np.float32))
    ranks = np.unique(key, return_inverse=True)[1].astype(np.uint32)
    if key.dtype.kind == "f":
        ranks[np.isnan(key)] = LAST
    return ranks


def _key(table: FeatureTable, name: str, descending: bool, rows: np.ndarray | None) -> np.ndarray:
    """An ascending key (uint32 or float32) with the highest, or NaN, for what has no value."""

    def some(values: np.ndarray) -> np.ndarray:
        return values if rows is None else values[rows]

    if name in WORD_KEYS:
        if table.vocab is None:
            return np.zeros(table.n if rows is None else len(rows), dtype=np.uint32)
        top = table.top_ids(name, 1)
        ids = some(top[:, 0] if top.shape[1] else np.full(table.n, -1))
        known = (ids >= 0) & (ids < table.vocab.n)
        ranks = table.vocab.ranks()[np.where(known, ids, 0)] if table.vocab.n else ids
        return _whole(ranks, known, descending)
    resolved = resolve(name)
    if resolved.kind == "list":
        raise UsageError(
            f"sort by {name!r}, a list", "a name with one value a row", f"{resolved.side} sorts by the best word"
        )
    texts = resolved.kind == "text"
    values = some(kept_places(table, resolved.base) if texts else table.column_once(name))
    if values.dtype.kind == "f":
        return -values if descending else values
    return _whole(values, some(table.known(name)), descending)


def _whole(values: np.ndarray, known: np.ndarray, descending: bool) -> np.ndarray:
    """Whole numbers and yes-or-nos as uint32, :data:`LAST` where they are not known."""
    wide = values.astype(np.int64)
    if descending:
        np.negative(wide, out=wide)
    if known.any():
        wide -= wide.min(where=known, initial=np.iinfo(np.int64).max)
    wide[~known] = int(LAST)
    return wide.astype(np.uint32)
