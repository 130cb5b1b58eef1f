"""The one-to-one pairing of two dictionaries with the largest total cosine: the one place that holds all cosines."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from wbtui.analysis.match import Dictionary
from wbtui.analysis.streaming import Stop, poll

TILE = 256
WIDTH = 4096
"""Of a tile of cosines, between two looks at the stop flag: 40 ms on one core at a width of 2,304."""

Pairs = tuple[np.ndarray, np.ndarray]
"""Rows and columns of a matrix that are paired."""


def assignment(
    a: Dictionary,
    b: Dictionary,
    *,
    room: Callable[[int, int], np.ndarray],
    solve: Callable[[], Pairs],
    device: torch.device | str = "cpu",
    stop: Stop | None = None,
) -> dict[str, np.ndarray]:
    """The one-to-one pairing of largest total cosine (linear sum assignment).

    The one place where all cosines are held at once, 8 bytes each: at most 16,384 rows a side (2 GB).

    Args:
        a, b: the dictionaries.
        room: gives a matrix fp64 of a size, at least as wide as high; it is filled with cosines times -1.
        solve: the rows and columns of that matrix whose sum is smallest (:mod:`wbtui.compute.pairing`).
        stop: polled while the cosines are made.

    Returns:
        ``assign.id`` int32 and ``assign.cos`` ``[a.n]``: the partner of each row of ``a``, -1 and NaN without one.

    Raises:
        Cancelled: the stop flag went up.
    """
    device = torch.device(device)
    swap = a.n > b.n  # scipy copies a matrix that is higher than wide
    first, second = (b, a) if swap else (a, b)
    cost = room(first.n, second.n)
    columns, gone_columns = second.unit(0, second.n, device, stop)
    for start in range(0, first.n, TILE):
        rows, gone = first.unit(start, min(first.n, start + TILE), device, stop)
        for left in range(0, second.n, WIDTH):
            poll(stop)
            here = slice(left, left + WIDTH)
            scores = rows @ columns[here].T
            scores[gone] = 0.0
            scores[:, gone_columns[here]] = 0.0
            np.negative(scores.cpu().numpy(), out=cost[start : start + len(rows), here])
    x, y = solve()
    cosines = -cost[x, y]
    left_ids, right = (y, x) if swap else (x, y)
    ids = np.full(a.n, -1, dtype=np.int32)
    found = np.full(a.n, np.nan, dtype=np.float32)
    ids[left_ids], found[left_ids] = right, np.clip(cosines, -1, 1)
    absent = np.zeros(a.n, dtype=bool)
    for start in range(0, a.n, TILE):
        absent[start : start + TILE] = a.unit(start, min(a.n, start + TILE), device, stop)[1].cpu().numpy()
    absent |= (ids >= 0) & (gone_columns if not swap else b.unit(0, b.n, device, stop)[1]).cpu().numpy()[ids]
    ids[absent], found[absent] = -1, np.nan
    return {"assign.id": ids, "assign.cos": found}
