"""Two dictionaries at one place of the stream: the nearest of each feature in the other, both ways in one pass.

For unit decoder rows ``a_i`` and ``b_j`` the product ``a_i . b_j`` is made tile by tile; of each tile only the largest
of its rows and of its columns are kept, so that one product serves both directions (methods 2.2). Beside them, the same
for random directions: how near does a direction that belongs to neither come? Two kinds: isotropic, and with the
covariance of the dictionary that it stands in for (``z W`` with Gaussian ``z`` has exactly that covariance).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from wbtui.analysis import nulls
from wbtui.analysis.neighbours import unit_rows
from wbtui.analysis.streaming import Stop, TileBuffer, padded, poll, slices

TILE = 512
WIDTH = 2048
"""A tile's product of 512 × 2,048 numbers is 4 MB: it is reduced while it is still in the cache."""
BLOCK = 16_384
"""Rows of the second dictionary that are held at once."""
KINDS = ("isotropic", "decoder_cov")

RowsOf = Callable[[int, int], Tensor]
"""Rows ``[start, stop)`` of a dictionary in the residual stream."""


KEEP_BYTES = 2_000_000_000
"""Unit rows of a dictionary up to this size stay in memory during a match; larger ones are read for each block."""


@dataclass
class Dictionary:
    """Decoder rows to be matched, read in ranges; unit rows are made once where they have room."""

    rows: RowsOf
    n: int
    centre: bool
    _unit: Tensor | None = field(default=None, repr=False)
    _gone: Tensor | None = field(default=None, repr=False)
    _made: Tensor | None = field(default=None, repr=False)

    def unit(self, start: int, stop: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Unit rows ``[stop - start, D]`` fp32 and which have no direction."""
        here = slice(start, stop)
        if self._unit is not None and self._gone is not None and self._made is not None:
            if not bool(self._made[here].all()):
                self._unit[here], self._gone[here] = self._read(start, stop, device)
                self._made[here] = True
            return self._unit[here], self._gone[here]
        found = self._read(start, stop, device)
        dim = found[0].shape[1]
        if self.n * dim * 4 <= KEEP_BYTES:
            self._unit = torch.empty((self.n, dim), device=device)
            self._gone = torch.empty(self.n, dtype=torch.bool, device=device)
            self._made = torch.zeros(self.n, dtype=torch.bool)
            self._unit[here], self._gone[here] = found
            self._made[here] = True
        return found

    def _read(self, start: int, stop: int, device: torch.device) -> tuple[Tensor, Tensor]:
        return unit_rows(self.rows(start, stop).to(device), centre=self.centre)


@dataclass
class Progressing:
    """What a pass has found so far; hand it in again and the pass goes on where it was stopped."""

    done: int = 0
    """Steps finished: each is one tile of the first against one block of the second dictionary."""
    values: dict[str, Tensor] = field(default_factory=dict)


def _running(state: Progressing, name: str, n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Best cosines [n] and their numbers, from -inf and -1 on."""
    if f"{name}.cos" not in state.values:
        state.values[f"{name}.cos"] = torch.full((n,), -torch.inf, device=device)
        state.values[f"{name}.id"] = torch.full((n,), -1, dtype=torch.int64, device=device)
    return state.values[f"{name}.cos"], state.values[f"{name}.id"]


def _better(best: Tensor, ids: Tensor, found: Tensor, tile: Tensor, dim: int, first: int) -> None:
    """Take what a tile has better: numbers are looked for only where something improved. Equal ones: the smallest."""
    where = (found > best).nonzero().flatten()
    if len(where):
        best[where] = found[where]
        # max is faster than argmax, and says the first of equal ones too
        ids[where] = tile.index_select(1 - dim, where).max(dim=dim).indices + first


def mutual(
    a: Dictionary,
    b: Dictionary,
    *,
    n_null: int,
    seed: int,
    device: torch.device | str = "cpu",
    tile: int = TILE,
    block: int = BLOCK,
    stop: Stop | None = None,
    progress: Callable[[float], None] | None = None,
    state: Progressing | None = None,
) -> dict[str, np.ndarray]:
    """The nearest of each row in the other dictionary, and of random directions in each.

    Args:
        a, b: the dictionaries.
        n_null: random directions of each kind for each side; 0: none.
        seed: of the random directions.
        tile: rows of ``a`` at once.
        block: rows of ``b`` held at once.
        stop: polled between slices of a product.
        progress: told the share done.
        state: of an earlier call that was stopped.

    Returns:
        ``a.cos``, ``a.id`` ``[a.n]``: best cosine in ``b`` and its number; ``b.cos``, ``b.id`` ``[b.n]`` the other way;
        ``null.KIND.a`` ``[n_null]``: best cosines in ``b`` of directions that stand in for ``a``'s, ``null.KIND.b`` the
        other way. NaN and -1 where a row has no direction, or the other dictionary none.

    Raises:
        Cancelled: the stop flag went up; ``state`` keeps what is done.
    """
    device = torch.device(device)
    state = state if state is not None else Progressing()
    buffer = TileBuffer(device)
    best_a, id_a = _running(state, "a", a.n, device)
    best_b, id_b = _running(state, "b", b.n, device)
    tiles = -(-a.n // tile)
    blocks = -(-b.n // block)
    if n_null and "random" not in state.values:
        state.values["random"] = random_rows(a, b, n_null, seed, device, block, stop)
        for side in ("a", "b"):
            state.values[f"null.{side}"] = torch.full((2 * n_null,), -torch.inf, device=device)
    for number in range(state.done // max(tiles, 1), blocks):
        b0, b1 = number * block, min(b.n, (number + 1) * block)
        others, gone_b = b.unit(b0, b1, device)
        if n_null and state.done == number * tiles:
            _nearest_only(state.values["random"][: 2 * n_null], others, gone_b, state.values["null.a"], buffer, stop)
        for at in range(state.done % tiles, tiles):
            a0, a1 = at * tile, min(a.n, (at + 1) * tile)
            rows, gone_a = a.unit(a0, a1, device)
            part = buffer.get("rows", padded(a1 - a0), rows.shape[1])
            part[: a1 - a0] = rows
            part[a1 - a0 :] = 0.0
            # a tile that is stopped half way leaves no trace: its numbers would be found again, and equal
            for low, high in slices(b1 - b0, WIDTH):
                poll(stop)
                scores = buffer.get("cosines", len(part), high - low)
                torch.mm(part, others[low:high].T, out=scores)
                scores = scores[: a1 - a0]
                if bool(gone_a.any()):
                    scores[gone_a] = -torch.inf
                if bool(gone_b[low:high].any()):
                    scores[:, gone_b[low:high]] = -torch.inf
                _better(best_a[a0:a1], id_a[a0:a1], scores.amax(1), scores, 1, b0 + low)
                inside = slice(b0 + low, b0 + high)
                _better(best_b[inside], id_b[inside], scores.amax(0), scores, 0, a0)
            if n_null and number == 0:
                _nearest_only(state.values["random"][2 * n_null :], rows, gone_a, state.values["null.b"], buffer, stop)
            state.done += 1
            if progress is not None:
                progress(state.done / (tiles * blocks))
    out = {}
    for name, best, ids in (("a", best_a, id_a), ("b", best_b, id_b)):
        none = torch.isneginf(best)
        out[f"{name}.cos"] = torch.where(none, torch.nan, best.clamp(-1.0, 1.0)).cpu().numpy()
        out[f"{name}.id"] = torch.where(none, -1, ids).to(torch.int32).cpu().numpy()
    for side in ("a", "b") if n_null else ():
        found = state.values[f"null.{side}"].clamp(max=1.0)
        found = torch.where(torch.isneginf(found), torch.nan, found).cpu().numpy()
        for place, kind in enumerate(KINDS):
            out[f"null.{kind}.{side}"] = found[place * n_null : (place + 1) * n_null]
    return out


def _nearest_only(
    random: Tensor, rows: Tensor, gone: Tensor, best: Tensor, buffer: TileBuffer, stop: Stop | None
) -> None:
    """Best cosines of random directions with some rows, into ``best``."""
    for low, high in slices(len(rows), WIDTH):
        poll(stop)
        scores = buffer.get("cosines", len(random), high - low)
        torch.mm(random, rows[low:high].T, out=scores)
        if bool(gone[low:high].any()):
            scores[:, gone[low:high]] = -torch.inf
        torch.maximum(best, scores.amax(1), out=best)


def random_rows(
    a: Dictionary, b: Dictionary, n: int, seed: int, device: torch.device, block: int = BLOCK, stop: Stop | None = None
) -> Tensor:
    """Unit directions ``[4 n, D]`` fp32: isotropic and with ``a``'s covariance, then isotropic and with ``b``'s."""
    parts: list[Tensor] = []
    for side, dictionary in enumerate((a, b)):
        with_covariance: Tensor | None = None
        for start in range(0, dictionary.n, block):
            poll(stop)
            rows, _ = dictionary.unit(start, min(dictionary.n, start + block), device)
            draw = torch.Generator().manual_seed((seed * 2 + side) * 1_000_003 + start)
            z = torch.randn((n, len(rows)), generator=draw).to(device)
            with_covariance = z @ rows if with_covariance is None else with_covariance.addmm_(z, rows)
        dim = dictionary.rows(0, min(1, dictionary.n)).shape[1]
        isotropic = nulls.directions("isotropic", n, seed * 2 + side, d_model=dim).to(device)
        covariant = with_covariance if with_covariance is not None else torch.zeros_like(isotropic)
        parts += [unit_rows(x, centre=dictionary.centre)[0] for x in (isotropic, covariant)]
    return torch.cat(parts)


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
