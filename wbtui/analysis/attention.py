"""How features take part in one head (E2, methods 1.3): projection, closed forms, and the record of all features.

With ``x_i`` a decoder row at the definition's scale, ``q_i = s x_i Q_eff`` (score multiplier included) and
``k_j = x_j K_eff`` turned by the offset, the score of query feature i against key feature j is ``S_ij = <q_i, k_j>``.
Means and root mean squares over partners come from the partners' mean and Gram matrix, never from the pairs:

    mean_j S_ij = <q_i, mean(k)>        mean_j S_ij^2 = q_i C_K q_i^T = |q_i C_K^(1/2)|^2,  C_K = K^T K / n

The root form has no cancellation. Everything else is one pass over pairs (:mod:`wbtui.analysis.attention_pairs`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wbtui.analysis.rope import Turn
from wbtui.analysis.streaming import Stop, padded, poll
from wbtui.definitions import AttentionDefinition
from wbtui.errors import WeightsError

BLOCK = 2048
VANISHED = 1e-6
"""A row of which the norm leaves a smaller share is constant up to fp32 rounding: no direction."""
Rows = dict[str, np.ndarray]
RowBlocks = Callable[[], Iterable[Tensor]]
"""Yields decoder rows ``[b, d_model]`` in order, each time it is called."""


@dataclass(frozen=True)
class Head:
    """One head's folded matrices and what its scores go through.

    Attributes:
        query, key: ``[d_model, d_head]`` fp32, norm gain and centring folded in.
        query_bias, key_bias: ``[d_head]`` or None.
        query_gain, key_gain: gains of q/k norms, None where there are none. With them scores are per-feature
            normalised, and biases stand inside the norm.
        scale: the score multiplier.
        softcap: the cap inside the softmax, None without.
        turn: the offset, None where keys stay as they are.
        centre: LayerNorm: lengths are measured without the all-ones component.
        bias: whether biases join the softmax.
    """

    query: Tensor
    key: Tensor
    scale: float
    query_bias: Tensor | None = None
    key_bias: Tensor | None = None
    query_gain: Tensor | None = None
    key_gain: Tensor | None = None
    eps: float = 1e-6
    softcap: float | None = None
    turn: Turn | None = None
    centre: bool = False
    bias: bool = True

    def queries(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Queries ``[n, d]`` with the multiplier in them, and the lengths ``[n]`` of the bare projections."""
        raw = x @ self.query
        q = _qk_norm(raw, self.query_bias, self.query_gain, self.eps) * self.scale
        return (q if self.turn is None else self.turn.queries(q)), torch.linalg.vector_norm(raw, dim=1)

    def keys(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys ``[n, d]``, turned, and the lengths ``[n]`` of the bare projections."""
        raw = x @ self.key
        k = _qk_norm(raw, self.key_bias, self.key_gain, self.eps)
        return (k if self.turn is None else self.turn.keys(k)), torch.linalg.vector_norm(raw, dim=1)

    def prior(self, k: Tensor) -> Tensor:
        """``s <b_q, k_j>`` ``[n]``: what a key receives whatever the query is; zero without a bias."""
        if self.query_bias is None or self.query_gain is not None or self.bound:
            return k.new_zeros(len(k))
        return k @ (self.query_bias.to(k.device) * self.scale)

    def query_terms(self, q: Tensor) -> Tensor:
        """``s <q_i + b_q, b_k>`` ``[n]``: equal for all keys of a query; only a softcap lets the softmax see it."""
        if self.key_bias is None or self.key_gain is not None or self.bound:
            return q.new_zeros(len(q))
        bias = self.key_bias.to(q.device)
        bias = bias if self.turn is None else self.turn.keys(bias[None])[0]
        constant = 0.0 if self.query_bias is None else float(self.query_bias.to(q.device) @ bias) * self.scale
        return q @ bias + constant

    @property
    def bound(self) -> bool:
        """Scores are upper bounds over offsets; no softmax is taken of them."""
        return self.turn is not None and self.turn.bound

    @property
    def biased(self) -> bool:
        """Whether the softmax sees a bias."""
        return self.bias and (self.query_bias is not None or self.key_bias is not None) and self.query_gain is None


def _qk_norm(raw: Tensor, bias: Tensor | None, gain: Tensor | None, eps: float) -> Tensor:
    if gain is None:
        return raw
    y = raw if bias is None else raw + bias.to(raw.device)
    return y * torch.rsqrt(y.square().mean(1, keepdim=True) + eps) * gain.to(raw.device)


def scaled(d: Tensor, definition: AttentionDefinition, centre: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Decoder rows at the definition's length (methods 0, "Feature scale").

    Args:
        d: ``[n, D]``, in the residual stream.
        centre: LayerNorm: ``rms`` rows are what that norm puts out, zero-mean with norm sqrt(D).

    Returns:
        rows ``[n, D]`` fp32; their lengths without what the norm removes ``[n]`` fp64; ``good [n]`` bool, False for a
        row that is not finite or that the norm removes (its row here is zero).
    """
    d = d.float()
    whole = torch.linalg.vector_norm(d, dim=1, dtype=torch.float64)
    norm = whole
    if centre:
        norm = torch.linalg.vector_norm(d - d.mean(1, keepdim=True), dim=1, dtype=torch.float64)
    good = torch.isfinite(norm) & (norm > VANISHED * whole)
    safe = torch.where(good, norm, 1.0)
    if definition.scale == "act":
        assert definition.activation is not None and definition.stream_rms is not None
        factor = torch.full_like(safe, definition.activation / definition.stream_rms)
    else:
        factor = (d.shape[1] ** 0.5 if definition.scale == "rms" else 1.0) / safe
    rows = d * factor.float()[:, None]
    odd = (norm < 1e-20) | (norm > 1e20)  # the factor, or its product, may leave fp32's range
    if bool(odd.any()):
        rows[odd] = (d[odd].double() * factor[odd, None]).float()
    if not bool(good.all()):
        rows[~good] = 0.0
    return rows, torch.where(good, norm * factor, 1.0), good


@dataclass
class Vectors:
    """Features (or random directions) as one head's queries and keys; only usable rows.

    Attributes:
        q, k: ``[m, d]`` fp32. ids: ``[m]`` which rows they are. n: rows in all.
        q_gain, k_gain: ``[m]`` fp64, length of the bare projection per unit of length in the stream.
        q_terms, k_terms: ``[m]``, see :meth:`Head.query_terms`, :meth:`Head.prior`.
    """

    q: Tensor
    k: Tensor
    ids: Tensor
    n: int
    q_gain: Tensor
    k_gain: Tensor
    q_terms: Tensor
    k_terms: Tensor


def project(
    head: Head, rows: RowBlocks, definition: AttentionDefinition, device: torch.device, stop: Stop | None = None
) -> Vectors:
    """Every usable row as query and key of a head.

    Raises:
        WeightsError: no row is usable.
        Cancelled: the stop flag went up.
    """
    parts: list[tuple[Tensor, ...]] = []
    first = 0
    for block in rows():
        for d in block.split(BLOCK):
            poll(stop)
            x, length, good = scaled(d.to(device), definition, head.centre)
            x, length = x[good], length[good]
            count = len(x)
            tile = torch.nn.functional.pad(x, (0, 0, 0, padded(count) - count))
            (q, q_len), (k, k_len) = head.queries(tile), head.keys(tile)
            ids = good.nonzero().flatten() + first
            parts.append((q[:count], k[:count], ids, q_len[:count].double() / length, k_len[:count].double() / length))
            first += len(d)
    if not parts or not sum(len(p[2]) for p in parts):
        raise WeightsError("no feature has a finite, non-zero decoder row", "a dictionary with directions")
    q, k, ids, q_gain, k_gain = (torch.cat([p[i] for p in parts]) for i in range(5))
    return Vectors(q, k, ids, first, q_gain, k_gain, head.query_terms(q), head.prior(k))


@dataclass(frozen=True)
class Partners:
    """Mean and root Gram matrices of one side's vectors: all that closed forms need.

    Attributes:
        mean: ``[d]`` fp32. root: ``[d, d]`` fp32, a square root of the second moment. unit_root: that of unit vectors.
    """

    mean: Tensor
    root: Tensor
    unit_root: Tensor


def partners(vectors: Tensor, stop: Stop | None = None) -> Partners:
    """Streamed moments of ``[m, d]`` vectors in fp64: a query may lie where the keys hardly reach."""
    m, d = vectors.shape
    mean = torch.zeros(d, dtype=torch.float64, device=vectors.device)
    gram = torch.zeros((2, d, d), dtype=torch.float64, device=vectors.device)
    for block in vectors.split(BLOCK):
        poll(stop)
        x, unit = block.double(), _unit(block)
        mean += x.sum(0)
        gram[0].addmm_(x.T, x)
        gram[1] += unit.T @ unit
    roots = [_root(g / m).float() for g in gram]
    return Partners((mean / m).float(), roots[0], roots[1])


def _unit(x: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x / torch.where(norm > 0, norm, 1.0)


def _root(moment: Tensor) -> Tensor:
    values, axes = torch.linalg.eigh(moment)
    return axes * values.clamp_min(0).sqrt()


def closed_forms(vectors: Tensor, against: Partners, gain: Tensor, usual_gain: float) -> dict[str, Tensor]:
    """Root mean square, mean, RMS cosine and gain of each vector ``[n, d]`` against the other side's partners."""
    return {
        "rms": torch.linalg.vector_norm(vectors @ against.root, dim=1),
        "mean": vectors @ against.mean,
        "cos_rms": torch.linalg.vector_norm(_unit(vectors) @ against.unit_root, dim=1),
        "gain": gain / usual_gain if usual_gain > 0 else torch.full_like(gain, float("nan")),
    }
