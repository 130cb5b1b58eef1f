"""Random directions that go through the features' own code (methods 1.2, "Thresholds").

Drawn on the CPU in fp64 from one seeded generator, so that every device and every range of rows sees the same ones.
Directions have length one; the final norm's projection and gain are applied where features' are
(:func:`wbtui.analysis.tokens.output_directions`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from wbtui.analysis.streaming import Stop, poll
from wbtui.errors import UsageError, WeightsError

KINDS = ("isotropic", "decoder_cov", "sign_flip")
_BLOCK = 1024

RowSource: TypeAlias = Tensor | Callable[[], Iterable[Tensor]]
"""A dictionary's rows: ``[F, D]``, or a function that yields them in blocks each time it is called."""


class NoRows(WeightsError):
    """Random directions like a dictionary's are wanted, and it has no row to go by. Who knows its files names them."""


@dataclass(frozen=True)
class Spectrum:
    """Second moment ``W^T W / F`` of a dictionary's rows in its principal axes.

    Attributes:
        values: ``[D]`` fp64, ascending, not negative.
        axes: ``[D, D]`` fp64, axes in columns.
        usable: ``[F]`` bool, the rows that counted: finite and not zero.
    """

    values: Tensor
    axes: Tensor
    usable: Tensor

    @property
    def used(self) -> Tensor:
        """Indices of the rows that counted, ascending."""
        return self.usable.nonzero().flatten()


def _blocks(rows: RowSource) -> Iterable[Tensor]:
    source = rows.split(_BLOCK) if isinstance(rows, Tensor) else rows()
    for block in source:
        yield from block.split(_BLOCK)


def _usable(block: Tensor) -> Tensor:
    return torch.isfinite(block).all(1) & (block != 0).any(1)


def spectrum(rows: RowSource, *, stop: Stop | None = None) -> Spectrum:
    """The dictionary's second moment, accumulated exactly in fp64 over row blocks, and its principal axes.

    Rows that are not finite or zero are left out. Compute it once per dictionary and hand it to :func:`directions`.
    Memory is a block's and one byte for each row, in one piece: small tensors that stay, made between large ones that
    go, would keep the allocator from using the large ones' place again, and take as much as the dictionary itself.

    Raises:
        WeightsError: no usable row.
        Cancelled: the stop flag went up.
    """
    moment: Tensor | None = None
    seen = bytearray()
    for block in _blocks(rows):
        poll(stop)
        block = block.cpu()
        good = _usable(block)
        x = block[good].double()
        moment = x.T @ x if moment is None else moment.addmm_(x.T, x)
        seen += good.numpy().tobytes()
    usable = torch.frombuffer(seen, dtype=torch.bool) if seen else torch.empty(0, dtype=torch.bool)
    count = int(usable.sum())
    if moment is None or count == 0:
        raise NoRows("a dictionary without a finite, non-zero row", "rows to take the covariance of")
    values, axes = torch.linalg.eigh(moment / count)
    return Spectrum(values.clamp_min(0.0), axes, usable)


def _generator(kind: str, n: int, seed: int) -> torch.Generator:
    # Hashed, so that kinds with one seed do not share their draws.
    digest = hashlib.sha256(f"wbtui null {kind} {n} {seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "little"))


def _unit(x: Tensor) -> Tensor:
    return x / torch.linalg.vector_norm(x, dim=1, keepdim=True)


def _take(rows: RowSource, ids: Tensor, dim: int, stop: Stop | None) -> Tensor:
    """The rows ``ids`` (any order, repeats allowed), ``[n, dim]`` fp64."""
    order = ids.argsort(stable=True)
    wanted = ids[order]
    out = torch.empty((len(ids), dim), dtype=torch.float64)
    first = 0
    for block in _blocks(rows):
        poll(stop)
        low, high = torch.searchsorted(wanted, torch.tensor([first, first + len(block)])).tolist()
        if high > low:
            out[order[low:high]] = block.cpu()[wanted[low:high] - first].double()
        first += len(block)
    return out


def directions(
    kind: str,
    n: int,
    seed: int,
    *,
    d_model: int | None = None,
    rows: RowSource | None = None,
    axes: Spectrum | None = None,
    start: int = 0,
    end: int | None = None,
    stop: Stop | None = None,
) -> Tensor:
    """Directions ``[start, end)`` of the ``n`` that ``(kind, seed, n)`` names.

    Args:
        kind: ``isotropic``: Gaussian directions. ``decoder_cov``: Gaussian with covariance ``W^T W / F``.
            ``sign_flip``: rows of W with random signs in their principal axes: a seeded sample, with repeats only
            where n > F.
        d_model: D; needed for ``isotropic``.
        rows: W, for the other kinds: decoder rows for writes, encoder columns for reads.
        axes: its :func:`spectrum`, if already there.

    Returns:
        ``[end - start, D]`` fp32 on the CPU, unit length.

    Raises:
        UsageError: unknown kind, or a range outside ``[0, n]``.
        WeightsError: no usable row in W.
    """
    if kind not in KINDS:
        raise UsageError(f"null kind {kind!r}", "one of " + ", ".join(KINDS))
    end = n if end is None else end
    if not 0 <= start <= end <= n:
        raise UsageError(f"null directions [{start}, {end})", f"a range within [0, {n}]")
    generator = _generator(kind, n, seed)
    if kind == "isotropic":
        if d_model is None:
            raise ValueError("isotropic directions need d_model")
        draw = torch.randn((n, d_model), generator=generator, dtype=torch.float64)
        return _unit(draw[start:end]).float()
    if rows is None:
        raise ValueError(f"{kind} directions need rows")
    axes = axes if axes is not None else spectrum(rows, stop=stop)
    dim = len(axes.values)
    poll(stop)
    if kind == "decoder_cov":
        draw = torch.randn((n, dim), generator=generator, dtype=torch.float64)[start:end]
        # The symmetric root: the same directions whatever signs the eigenvectors came with.
        return _unit(((draw @ axes.axes) * axes.values.sqrt()) @ axes.axes.T).float()
    used = axes.used
    count = len(used)
    chosen = torch.randperm(count, generator=generator)[:n]
    if n > count:
        chosen = torch.cat([chosen, torch.randint(count, (n - count,), generator=generator)])
    signs = torch.randint(2, (n, dim), generator=generator, dtype=torch.int8)[start:end]
    if start == end:
        return torch.empty((0, dim))
    taken = _take(rows, used[chosen[start:end]], dim, stop)
    return _unit(((taken @ axes.axes) * (signs.double() * 2 - 1)) @ axes.axes.T).float()
