"""Two dictionaries at one place of the stream: the nearest of each feature in the other, both ways in one pass.

For unit decoder rows ``a_i`` and ``b_j`` the product ``a_i . b_j`` is made tile by tile; of each tile only the largest
of its rows and of its columns are kept, so that one product serves both directions (methods 2.2). Beside them, the same
for random directions: how near does a direction that belongs to neither come? Two kinds: isotropic, and with the
covariance of the dictionary that it stands in for (``z W`` with Gaussian ``z`` has exactly that covariance; from
wide dictionaries each takes a part of the rows, and all parts are taken equally often).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from wbtui.analysis import nulls
from wbtui.analysis.largest import HEIGHT, WIDE, Peaks
from wbtui.analysis.neighbours import unit_rows
from wbtui.analysis.pool import spread
from wbtui.analysis.streaming import Stop, TileBuffer, own_buffer, poll, slices

TILE = 1024
WIDTH = 2048
"""A tile's product of 1,024 × 2,048 numbers is 8 MB, reduced while it is still in the cache; larger ones are no faster
to multiply, and take longer to stop."""
DRAWN = 4096
"""Rows at least that a random direction with a dictionary's covariance is made of."""
SOME = 512
"""Rows that random directions are made of at a time, between two looks at the stop flag: they lie far apart where a
dictionary is wide, and so many are found again by the processor's own tables."""
PIECE = 256
"""Rows that are read and brought to length one together, in a core's cache."""
PLAIN = 1e-12, 1e16
"""Lengths whose squares, and those of all that counts in them, are plain fp32 numbers."""
BLOCK = 16_384
"""Rows of the second dictionary that are held at once."""
KINDS = ("isotropic", "decoder_cov")

T = TypeVar("T")
R = TypeVar("R")
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

    def unit(self, start: int, stop: int, device: torch.device, flag: Stop | None = None) -> tuple[Tensor, Tensor]:
        """Unit rows ``[stop - start, D]`` fp32 and which have no direction.

        Raises:
            Cancelled: the stop flag went up.
        """
        if self._unit is None or self._gone is None or self._made is None:
            dim = self.rows(0, min(1, self.n)).shape[1]
            if self.n * dim * 4 > KEEP_BYTES:
                unit = torch.empty((stop - start, dim), device=device)
                gone = torch.empty(stop - start, dtype=torch.bool, device=device)
                self._fill(start, stop, unit, gone, flag)
                return unit, gone
            self._unit = torch.empty((self.n, dim), device=device)
            self._gone = torch.empty(self.n, dtype=torch.bool, device=device)
            self._made = torch.zeros(self.n, dtype=torch.bool)
        here = slice(start, stop)
        if not bool(self._made[here].all()):
            self._fill(start, stop, self._unit[here], self._gone[here], flag)
            self._made[here] = True
        return self._unit[here], self._gone[here]

    def _fill(self, start: int, stop: int, unit: Tensor, gone: Tensor, flag: Stop | None) -> None:
        def piece(at: int) -> None:
            poll(flag)
            end = min(stop, at + PIECE)
            inside = slice(at - start, end - start)
            gone[inside] = _unit(self.rows(at, end).to(unit.device), self.centre, unit[inside])

        _share(piece, range(start, stop, PIECE), unit)


def _unit(rows: Tensor, centre: bool, out: Tensor) -> Tensor:
    """:func:`~wbtui.analysis.neighbours.unit_rows` into ``out``, with lengths summed in fp32 where that is as good.

    Lengths differ from those in fp64 by a rounding or two, products by as much anyway; they take a tenth of the time.
    """
    if not centre and rows.dtype in (torch.float32, torch.bfloat16, torch.float16):
        rows = rows.float()
        length = torch.linalg.vector_norm(rows, dim=1)
        low, high = torch.aminmax(length)
        if float(low) > PLAIN[0] and float(high) < PLAIN[1]:  # NaN is neither
            torch.mul(rows, length.reciprocal_()[:, None], out=out)
            return torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
    return unit_rows(rows, centre=centre, out=out)[1]


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
        tile: rows of ``a`` at once; its slices are shared out among threads, and the numbers do not depend on them.
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
        others, gone_b = b.unit(b0, b1, device, stop)
        if n_null and state.done == number * tiles:
            _nearest_only(state.values["random"][: 2 * n_null], others, gone_b, state.values["null.a"], buffer, stop)
        for at in range(state.done % tiles, tiles):
            a0, a1 = at * tile, min(a.n, (at + 1) * tile)
            rows, gone_a = a.unit(a0, a1, device, stop)
            part = rows
            if len(rows) % HEIGHT:
                part = buffer.get("rows", _cut(len(rows)), rows.shape[1])
                part[: len(rows)] = rows
                part[len(rows) :] = 0.0
            mine, theirs = (best_a[a0:a1], id_a[a0:a1]), (best_b[b0:b1], id_b[b0:b1])
            _tile(part, others, (gone_a, gone_b), mine, theirs, (a0, b0), buffer, stop)
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


def _tile(
    part: Tensor,
    others: Tensor,
    gone: tuple[Tensor, Tensor],
    mine: tuple[Tensor, Tensor],
    theirs: tuple[Tensor, Tensor],
    first: tuple[int, int],
    buffer: TileBuffer,
    stop: Stop | None,
) -> None:
    """One tile of the first dictionary against a block of the second, into what was best before.

    A tile that is stopped half way leaves no trace: its numbers would be found again, and equal.
    """
    n, absent = len(gone[0]), bool(gone[0].any())

    def one(bounds: tuple[int, int]) -> tuple[Tensor, Tensor]:
        poll(stop)
        here, width = slice(*bounds), bounds[1] - bounds[0]
        scratch = _scratch(buffer)
        scores = scratch.get("cosines", len(part), _cut(width, WIDE))
        torch.mm(part, others[here].T, out=scores[:, :width])
        scores[n:] = -torch.inf
        scores[:, width:] = -torch.inf
        if absent:
            scores[:n][gone[0]] = -torch.inf
        if bool(gone[1][here].any()):
            scores[:, :width][:, gone[1][here]] = -torch.inf
        peaks = Peaks.of(scores, scratch)
        peaks.columns_into(theirs[0][here], theirs[1][here], first[0])
        found = mine[0].clone(), mine[1].clone()
        peaks.rows_into(*found, first[1] + bounds[0])
        return found

    for values, ids in _share(one, slices(len(others), WIDTH), part, others):
        better = values > mine[0]  # in order: of equal ones the smallest number
        mine[0][better], mine[1][better] = values[better], ids[better]


def _cut(n: int, group: int = HEIGHT) -> int:
    """The next multiple of a group, which is one of ``TILE_STEP`` too: a product's digits then do not depend on n."""
    return -(-n // group) * group


def _scratch(buffer: TileBuffer) -> TileBuffer:
    """A thread's own scratch; on a GPU there is one thread."""
    return own_buffer() if buffer.device.type == "cpu" else buffer


def _share(work: Callable[[T], R], items: Sequence[T], *sizes: Tensor) -> list[R]:
    """The pieces shared out among threads; on a GPU one after another."""
    if sizes[0].device.type != "cpu":
        return [work(item) for item in items]
    return spread(work, items, sum(size.numel() for size in sizes))


def _nearest_only(
    random: Tensor, rows: Tensor, gone: Tensor, best: Tensor, buffer: TileBuffer, stop: Stop | None
) -> None:
    """Best cosines of random directions with some rows, into ``best``."""

    def one(bounds: tuple[int, int]) -> Tensor:
        poll(stop)
        here = slice(*bounds)
        scores = _scratch(buffer).get("cosines", len(random), bounds[1] - bounds[0])
        torch.mm(random, rows[here].T, out=scores)
        if bool(gone[here].any()):
            scores[:, gone[here]] = -torch.inf
        return scores.amax(1)

    for found in _share(one, slices(len(rows), WIDTH), random, rows):
        torch.maximum(best, found, out=best)


def random_rows(
    a: Dictionary, b: Dictionary, n: int, seed: int, device: torch.device, block: int = BLOCK, stop: Stop | None = None
) -> Tensor:
    """Unit directions ``[4 n, D]`` fp32: isotropic and with ``a``'s covariance, then isotropic and with ``b``'s.

    A wide dictionary's are each made of every G-th row (at least ``DRAWN`` of them), as many from the first as from the
    second and so on: together they have the covariance of all rows.
    """
    parts: list[Tensor] = []
    for side, dictionary in enumerate((a, b)):
        dim = dictionary.rows(0, min(1, dictionary.n)).shape[1]
        isotropic = nulls.directions("isotropic", n, seed * 2 + side, d_model=dim).to(device)
        covariant = torch.zeros_like(isotropic)
        groups = max(1, min(dictionary.n // DRAWN, n))
        for start in range(0, dictionary.n, block):
            rows, _ = dictionary.unit(start, min(dictionary.n, start + block), device, stop)
            draw = torch.Generator().manual_seed((seed * 2 + side) * 1_000_003 + start)
            _add_products(covariant, rows, start, groups, draw, stop)
        parts += [unit_rows(x, centre=dictionary.centre)[0] for x in (isotropic, covariant)]
    return torch.cat(parts)


def _add_products(
    total: Tensor, rows: Tensor, start: int, groups: int, draw: torch.Generator, stop: Stop | None
) -> None:
    """To each random direction its part of some rows, of which the first is ``start``, by Gaussian numbers."""
    parts = [(total[group::groups], rows[(group - start) % groups :: groups]) for group in range(groups)]
    work = [(mine, some, torch.randn((len(mine), len(some)), generator=draw)) for mine, some in parts]

    def add(item: tuple[Tensor, Tensor, Tensor]) -> None:
        mine, some, drawn = item
        for z, few in zip(drawn.split(SOME, 1), some.split(SOME), strict=True):
            poll(stop)
            mine.addmm_(z.to(total.device), few)

    _share(add, work, rows)
