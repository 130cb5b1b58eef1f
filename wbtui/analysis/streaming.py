"""The tiled product and its fused reductions: directions times tokens, one tile of rows at a time, nothing dense kept.

A tile is up to 256 directions times the whole vocabulary in one reused buffer. The product runs in slices of at most
4,096 tokens with the stop flag polled between them, which is what lets a running shard be stopped within 100 ms. A
product's last digits depend on the number of rows where they are few, and on slices narrower than a few columns, so
tiles are padded to a multiple of ``TILE_STEP`` rows and slices are of balanced width: sliced and whole products then
agree bit for bit.

Reductions go chunk by chunk through a small scratch (fp32 within a chunk, fp64 across), so they need no full-size
temporary and do not depend on the tile's height; those of a CPU's fp32 product are taken from each slice at once (see
:mod:`wbtui.analysis.sweep`). Sources: methods 1.2, speed.md b.1.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wbtui.analysis.either import Stop as Stop
from wbtui.analysis.either import poll as poll
from wbtui.analysis.pool import spread
from wbtui.analysis.power import DEEPEST, UNIT, power
from wbtui.analysis.reduce import moments_of
from wbtui.definitions import TILE_STEP

TILE = 256
SLICE = 4096
"""Tokens in a slice: fewer cost the product time, as each brings the directions into order again."""
SLICE_DEVICE = 65_536
"""A GPU wants few, large kernels."""
LAZY_ELEMENTS = 1 << 21
"""Elements promoted to fp32 at once: the slice stays in a shared cache until the product has read it."""
LONE_ELEMENTS = 1 << 17
"""The same for a few rows, where promoting is the work: half a megabyte stays in the core's own cache."""
CHUNK = 2048
CHUNK_DEVICE = 65_536
"""Columns in a chunk: on a CPU two scratches of 128 rows stay in the core's cache; a GPU wants few, large kernels."""


def padded(rows: int) -> int:
    """The height of the tile that holds ``rows`` rows: the next multiple of ``TILE_STEP``."""
    return -(-rows // TILE_STEP) * TILE_STEP


def slices(n: int, width: int = SLICE) -> list[tuple[int, int]]:
    """Balanced ranges of at most ``width`` (a multiple of 64) over ``n`` columns, cut at multiples of 64.

    Balanced, so that the last is no sliver: a product of a few columns takes another kernel, with other last digits.
    """
    count = -(-n // width)
    cuts = [round(n * i / (count * 64)) * 64 for i in range(count)] + [n]
    return list(itertools.pairwise(cuts))


class TileBuffer:
    """The memory of one running tile, kept between tiles and calls (filling fresh pages costs five times as much).

    One buffer serves one thread.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._flat: dict[str, Tensor] = {}

    def get(self, name: str, rows: int, columns: int) -> Tensor:
        """An uninitialised fp32 view ``[rows, columns]``, contiguous, over memory that grows and never shrinks."""
        need = rows * columns
        flat = self._flat.get(name)
        if flat is None or flat.numel() < need:
            flat = self._flat[name] = torch.empty(need, dtype=torch.float32, device=self.device)
        return flat[:need].view(rows, columns)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(4 * flat.numel() for flat in self._flat.values())


_own = threading.local()


def own_buffer() -> TileBuffer:
    """This thread's scratch on the CPU."""
    if not hasattr(_own, "buffer"):
        _own.buffer = TileBuffer()
    buffer: TileBuffer = _own.buffer
    return buffer


def slices_of(out: Tensor) -> list[tuple[int, int]]:
    """The slices in which a product into ``out [t, V]`` is taken: by the vocabulary's size alone."""
    return slices(out.shape[1], SLICE if out.device.type == "cpu" else SLICE_DEVICE)


def product(
    directions: Tensor,
    tokens: Tensor,
    out: Tensor,
    buffer: TileBuffer,
    *,
    stop: Stop | None = None,
    width: int | None = None,
    column_sum: tuple[Tensor, Tensor] | None = None,
    after: Callable[[int, TileBuffer], None] | None = None,
) -> Tensor:
    """``out[:, v] = directions @ tokens[v]`` in vocabulary slices; on a CPU each by one thread.

    Args:
        directions: ``[t, D]`` fp32; ``t`` a multiple of ``TILE_STEP`` where digits must not depend on the company.
        tokens: ``[V, D]``; other dtypes than fp32 are promoted piece by piece, never as a whole.
        out: ``[t, V]`` fp32, written in place.
        buffer: scratch for promoted pieces on a device (threads on a CPU have their own).
        stop: polled before each slice and piece.
        width: slice width; None is that of :func:`slices_of`.
        column_sum: ``(weights [V] fp32, total [D] fp64)``: ``total += weights @ tokens`` on the way, while a piece is
            in the cache.
        after: told the first column of each slice that is done, and the scratch of the thread that did it and waits.

    Raises:
        Cancelled: the stop flag went up.
    """
    plain = tokens.dtype == torch.float32
    dim = tokens.shape[1]
    on_cpu = out.device.type == "cpu"
    at_once = LAZY_ELEMENTS if len(directions) >= TILE_STEP else LONE_ELEMENTS
    piece = max(64, at_once // dim // 64 * 64) if on_cpu else SLICE_DEVICE

    def one(bounds: tuple[int, int]) -> Tensor | None:
        a, b = bounds
        scratch = own_buffer() if on_cpu else buffer
        total = torch.zeros_like(column_sum[1]) if column_sum is not None else None
        for c, d in [(0, b - a)] if plain else slices(b - a, piece):
            poll(stop)
            part = tokens[a + c : a + d]
            if not plain:
                part = scratch.get("promoted", d - c, dim).copy_(part)
            torch.mm(directions, part.T, out=out[:, a + c : a + d])
            if total is not None and column_sum is not None:
                total += torch.mv(part.T, column_sum[0][a + c : a + d]).double()
        if after is not None:
            after(a, scratch)
        return total

    bounds = slices_of(out) if width is None else slices(tokens.shape[0], width)
    totals = spread(one, bounds, tokens.numel()) if on_cpu else [one(each) for each in bounds]
    if column_sum is not None:
        for total in totals:
            column_sum[1].add_(total)
    return out


def best(x: Tensor, k: int, *, largest: bool = True) -> tuple[Tensor, Tensor]:
    """The ``min(k, V)`` largest (or smallest) entries of each row, best first; which of equal ones is not said.

    Two levels: the largest ``k`` of a row lie in the ``k`` blocks with the largest maxima, so only those are gathered.

    Args:
        x: ``[t, V]`` fp32 without NaN.

    Returns:
        values ``[t, k]`` and columns ``[t, k]`` (int64).
    """
    t, v = x.shape
    want = min(k, v)
    block = block_for(v, want)
    if block < 4:
        values, columns = x.topk(want, dim=1, largest=largest)
        return values, columns
    n_blocks = v // block
    # Strided blocks: block j holds columns j, j + n_blocks, ...; the reduction then runs over contiguous memory.
    view = x[:, : n_blocks * block].unflatten(1, (block, n_blocks))
    peaks = view.amax(1) if largest else view.amin(1)
    which = peaks.topk(want, dim=1, largest=largest, sorted=False).indices
    steps = torch.arange(block, device=x.device) * n_blocks
    candidates = (which[:, None, :] + steps[None, :, None]).flatten(1)
    if n_blocks * block < v:
        rest = torch.arange(n_blocks * block, v, device=x.device)
        candidates = torch.cat([candidates, rest.expand(t, -1)], dim=1)
    return chosen(x, candidates, want, largest)


def block_for(n: int, want: int) -> int:
    """How many columns share one peak where ``want`` of ``n`` are sought: a power of two up to 64."""
    return 1 << min(6, max(0, int(math.log2(max(1.0, n / want)) / 2 + 0.5)))


def chosen(x: Tensor, candidates: Tensor, want: int, largest: bool) -> tuple[Tensor, Tensor]:
    """The ``want`` best of each row's ``candidates [t, m]`` (columns of ``x``), best first: values and columns."""
    values, index = x.gather(1, candidates).topk(want, dim=1, largest=largest)
    return values, candidates.gather(1, index)


def top_k(
    x: Tensor,
    k: int,
    *,
    largest: bool = True,
    found: Callable[[int], tuple[Tensor, Tensor]] | None = None,
) -> tuple[Tensor, Tensor]:
    """:func:`best`, equal values by smaller column.

    The ``k + 1``-th value tells whether a tie straddles the cut; only such rows are scanned whole.

    ``found``: another way to :func:`best`'s answer for ``x``.
    """
    k = min(k, x.shape[1])
    values, columns = best(x, k + 1, largest=largest) if found is None else found(k + 1)
    if values.shape[1] > 1:
        tied = (values[:, 1:] == values[:, :-1]).any(1).nonzero().flatten()
        if len(tied):
            values[tied, :k], columns[tied, :k] = _by_column(x, tied, values[tied], columns[tied], k, largest)
    return values[:, :k], columns[:, :k]


def _by_column(
    x: Tensor, rows: Tensor, values: Tensor, columns: Tensor, k: int, largest: bool
) -> tuple[Tensor, Tensor]:
    """Rows with equal values among their best ``k + 1``: which of the equal ones belong, and their order."""
    if values.shape[1] > k:
        cut = values[:, k - 1]
        for i in (values[:, k] == cut).nonzero().flatten().tolist():
            equal = values[i, :k] == cut[i]
            need = int(equal.sum())
            columns[i, :k][equal] = (x[rows[i]] == cut[i]).nonzero().flatten()[:need]
    values, columns = values[:, :k], columns[:, :k]
    order = columns.argsort(dim=1)
    values, columns = values.gather(1, order), columns.gather(1, order)
    order = values.argsort(dim=1, descending=largest, stable=True)
    return values.gather(1, order), columns.gather(1, order)


@dataclass(frozen=True)
class Moments:
    """Population moments of each row: fp64 tensors ``[t]``. ``kurt`` is non-excess."""

    mean: Tensor
    std: Tensor
    skew: Tensor
    kurt: Tensor

    @staticmethod
    def of(about: Tensor, sums: Tensor, n: int) -> Moments:
        """Of ``n`` numbers a row, from the sums ``[4, pieces, t]`` fp32 of the powers of their differences from ``about
        [t]``."""
        return Moments(*moments_of(about.double(), sums.double().sum(1) / n))


def _chunk(x: Tensor) -> int:
    return CHUNK if x.device.type == "cpu" else CHUNK_DEVICE


def moments(x: Tensor, buffer: TileBuffer, *, about: Tensor | None = None, stop: Stop | None = None) -> Moments:
    """Mean, standard deviation, skewness and kurtosis of each row of ``x [t, V]``.

    The powers are of differences from the mean, so nothing cancels where it is large against the spread. Rows without
    spread have NaN skewness and kurtosis.

    Args:
        x: ``[t, V]`` fp32.
        buffer: scratch.
        about: ``[t]`` fp32, the means as far as rounding lets them be known beforehand; None takes them from ``x``,
            in a pass of its own. What they leave over is put right.
        stop: polled.
    """
    t, v = x.shape
    chunks = x.split(_chunk(x), dim=1)
    sums = torch.empty((4, len(chunks), t), dtype=torch.float32, device=x.device)
    first, second, third, fourth = (each.unbind(0) for each in sums)
    if about is None:
        for j, chunk in enumerate(chunks):
            torch.sum(chunk, dim=1, out=first[j])
        about = (sums[0].double().sum(0) / v).float()
    column = about[:, None]
    scratch = _scratches(buffer, chunks)
    for j, chunk in enumerate(chunks):
        poll(stop)
        y, y2 = scratch[j]
        torch.sum(torch.sub(chunk, column, out=y), dim=1, out=first[j])
        torch.sum(torch.mul(y, y, out=y2), dim=1, out=second[j])
        torch.sum(y.mul_(y2), dim=1, out=third[j])
        torch.sum(y2.mul_(y2), dim=1, out=fourth[j])
    return Moments.of(about, sums, v)


def _scratches(buffer: TileBuffer, chunks: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Two pieces of scratch for each chunk: the same memory for all, views made once."""
    made: dict[int, tuple[Tensor, Tensor]] = {}
    for t, width in ((len(chunk), chunk.shape[1]) for chunk in chunks):
        if width not in made:
            made[width] = buffer.get("scratch", t, width), buffer.get("scratch2", t, width)
    return [made[chunk.shape[1]] for chunk in chunks]


def softmax_entropies(
    x: Tensor,
    signs: Sequence[tuple[Tensor, Tensor]],
    buffer: TileBuffer,
    *,
    span: Tensor | None = None,
    stop: Stop | None = None,
) -> list[tuple[Tensor, Tensor]]:
    """Entropy and partition sum of ``softmax(rate * x)`` of each row, for one or several rates in one reading of ``x``.

    Args:
        x: ``[t, V]`` fp32.
        signs: for each rate: ``peak [t]`` fp32, the row's maximum (minimum where the rate is negative), so that
            exponents never exceed 0; and ``rate [t]`` fp64, kappa over the row's standard deviation; negative for the
            other sign.
        span: ``[t]`` fp64, the rows' maximum less their minimum: where no exponent can lie below what fp32 holds in
            full, none is looked for. Features near one token's direction have such exponents, and take several times
            as long without being looked after.

    Returns:
        For each: entropy in nats and ``sum(exp(rate * (x - peak)))``, both fp64 ``[t]``. NaN rates give NaN.
    """
    chunks = x.split(_chunk(x), dim=1)
    sums = torch.empty((len(signs), 2, len(chunks), len(x)), dtype=torch.float32, device=x.device)
    views = [(plain.unbind(0), by_exponent.unbind(0)) for plain, by_exponent in sums.unbind(0)]
    columns = [(peak[:, None], (rate / UNIT).float()[:, None]) for peak, rate in signs]
    deep = [span is None or bool((span * rate.abs() > -DEEPEST * UNIT).any()) for _, rate in signs]
    scratch = _scratches(buffer, chunks)
    for j, chunk in enumerate(chunks):
        poll(stop)
        y, e = scratch[j]
        for (peak, rate), (plain, by_exponent), down in zip(columns, views, deep, strict=True):
            torch.sub(chunk, peak, out=y).mul_(rate)
            if down:
                y.clamp_(min=DEEPEST)
            torch.sum(power(y, out=e), dim=1, out=plain[j])
            torch.sum(e.mul_(y), dim=1, out=by_exponent[j])
    totals = sums.double().sum(2)
    return [(z.log() - UNIT * weighted / z, z) for z, weighted in totals]
