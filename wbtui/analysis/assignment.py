"""The one-to-one pairing of two dictionaries with the largest total cosine: the one place that holds all cosines."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from wbtui.analysis.match import Dictionary
from wbtui.analysis.streaming import Stop, poll

TILE = 512


def assignment(
    a: Dictionary,
    b: Dictionary,
    *,
    device: torch.device | str = "cpu",
    stop: Stop | None = None,
    beat: Callable[[], None] | None = None,
) -> dict[str, np.ndarray]:
    """The one-to-one pairing of largest total cosine (linear sum assignment, by scipy).

    The one place where all cosines are held at once, 8 bytes each: at most 16,384 rows a side (2 GB).

    Args:
        a, b: the dictionaries.
        stop: polled while the cosines are made and while scipy works, whose thread is then left to end by itself.
        beat: called a few times a second meanwhile.

    Returns:
        ``assign.id`` int32 and ``assign.cos`` ``[a.n]``: the partner of each row of ``a``, -1 and NaN without one.

    Raises:
        Cancelled: the stop flag went up.
    """
    import threading

    from scipy.optimize import linear_sum_assignment

    device = torch.device(device)
    swap = a.n > b.n  # scipy copies a matrix that is higher than wide
    first, second = (b, a) if swap else (a, b)
    cost = np.empty((first.n, second.n))
    columns, gone_columns = second.unit(0, second.n, device)
    for start in range(0, first.n, TILE):
        poll(stop)
        rows, gone = first.unit(start, min(first.n, start + TILE), device)
        scores = rows @ columns.T
        scores[gone] = 0.0
        scores[:, gone_columns] = 0.0
        cost[start : start + len(rows)] = -scores.cpu().numpy()
    answer: list[tuple[np.ndarray, np.ndarray]] = []
    failure: list[BaseException] = []

    def work() -> None:
        try:
            answer.append(linear_sum_assignment(cost))
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while thread.is_alive():
        poll(stop)
        if beat is not None:
            beat()
        thread.join(0.1)
    if failure:
        raise failure[0]
    x, y = answer[0]
    cosines = -cost[x, y]
    left, right = (y, x) if swap else (x, y)
    ids = np.full(a.n, -1, dtype=np.int32)
    found = np.full(a.n, np.nan, dtype=np.float32)
    ids[left], found[left] = right, np.clip(cosines, -1, 1)
    absent = np.zeros(a.n, dtype=bool)
    for start in range(0, a.n, TILE):
        absent[start : start + TILE] = a.unit(start, min(a.n, start + TILE), device)[1].cpu().numpy()
    absent |= (ids >= 0) & (gone_columns if not swap else b.unit(0, b.n, device)[1]).cpu().numpy()[ids]
    ids[absent], found[absent] = -1, np.nan
    return {"assign.id": ids, "assign.cos": found}
