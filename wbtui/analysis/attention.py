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
class QKNorm:
    """What stands between a query's (or key's) projection and the dot product (methods 3.4): ``y = norm(x W + b)``.

    Attributes:
        gain: ``[d_head]``, this head's part of the norm's weight.
        bias: ``[d_head]`` or None, added behind the norm.
        centre: LayerNorm: the mean over the width goes first.
        whole: ``[d_model, n * d_head]``: the root mean square runs over all of a layer's heads together (OLMo-2), whose
            projections these are; None where it runs over the head alone.
        whole_bias: ``[n * d_head]`` or None.
        eps: under the root.
    """

    gain: Tensor
    bias: Tensor | None = None
    centre: bool = False
    whole: Tensor | None = None
    whole_bias: Tensor | None = None
    eps: float = 1e-6

    def __call__(self, raw: Tensor, inner_bias: Tensor | None, x: Tensor) -> Tensor:
        """The normed vectors ``[n, d_head]`` without the outer bias; ``raw`` is ``x`` projected by the head."""
        y = raw if inner_bias is None else raw + inner_bias.to(raw.device)
        if self.centre:
            y = y - y.mean(1, keepdim=True)
        over = y
        if self.whole is not None:
            over = x @ self.whole.to(x.device)
            over = over if self.whole_bias is None else over + self.whole_bias.to(x.device)
        return y * torch.rsqrt(over.square().mean(1, keepdim=True) + self.eps) * self.gain.to(raw.device)


@dataclass(frozen=True)
class Head:
    """One head's folded matrices and what its scores go through.

    Attributes:
        query, key: ``[d_model, d_head]`` fp32, norm gain and centring folded in.
        query_bias, key_bias: ``[d_head]`` or None; in front of a q/k norm they stand inside it.
        query_norm, key_norm: q/k norms, None where there are none. With them scores are per-feature normalised.
        scale: the score multiplier; a tensor ``[d_head]`` where it differs between turning dims and others (YaRN).
        softcap: the cap inside the softmax, None without.
        sink: a logit that joins the softmax and carries no value, None without.
        turn: the offset, None where keys stay as they are.
        centre: LayerNorm: lengths are measured without the all-ones component.
        bias: whether biases join the softmax.
    """

    query: Tensor
    key: Tensor
    scale: float | Tensor
    query_bias: Tensor | None = None
    key_bias: Tensor | None = None
    query_norm: QKNorm | None = None
    key_norm: QKNorm | None = None
    softcap: float | None = None
    sink: float | None = None
    turn: Turn | None = None
    centre: bool = False
    bias: bool = True

    def queries(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Queries ``[n, d]`` with the multiplier in them, and the lengths ``[n]`` of the bare projections."""
        raw = x @ self.query
        q = self.multiplied(raw if self.query_norm is None else self.query_norm(raw, self.query_bias, x))
        return (q if self.turn is None else self.turn.queries(q)), torch.linalg.vector_norm(raw, dim=1)

    def keys(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys ``[n, d]``, turned, and the lengths ``[n]`` of the bare projections."""
        raw = x @ self.key
        k = raw if self.key_norm is None else self.key_norm(raw, self.key_bias, x)
        return (k if self.turn is None else self.turn.keys(k)), torch.linalg.vector_norm(raw, dim=1)

    def prior(self, k: Tensor) -> Tensor:
        """``s <b_q, k_j>`` ``[n]``: what a key receives whatever the query is; zero without a bias."""
        bias = self.constant_query
        return k.new_zeros(len(k)) if bias is None or self.bound else k @ bias.to(k.device)

    def query_terms(self, q: Tensor) -> Tensor:
        """``s <q_i + b_q, b_k>`` ``[n]``: equal for all keys of a query; only a softcap or a sink lets the softmax see
        it."""
        bias = self._outer(self.key_bias, self.key_norm)
        if bias is None or self.bound:
            return q.new_zeros(len(q))
        bias = bias.to(q.device)
        bias = bias if self.turn is None else self.turn.keys(bias[None])[0]
        query = self.constant_query
        return q @ bias + (0.0 if query is None else float(query.to(q.device) @ bias))

    @property
    def constant_query(self) -> Tensor | None:
        """``[d_head]``: the constant part of every query, multiplier included; None without."""
        bias = self._outer(self.query_bias, self.query_norm)
        return None if bias is None else self.multiplied(bias[None])[0]

    @property
    def bound(self) -> bool:
        """Scores are upper bounds over offsets; no softmax is taken of them."""
        return self.turn is not None and self.turn.bound

    @property
    def linear(self) -> bool:
        """Whether scores are linear in the query's and the key's direction."""
        return self.query_norm is None and self.key_norm is None and not self.bound

    @property
    def biased(self) -> bool:
        """Whether the softmax sees a bias."""
        outer = (self._outer(self.query_bias, self.query_norm), self._outer(self.key_bias, self.key_norm))
        return self.bias and any(b is not None for b in outer)

    def multiplied(self, x: Tensor) -> Tensor:
        """Vectors ``[n, d_head]`` times the score multiplier."""
        return x * (self.scale.to(x.device) if isinstance(self.scale, Tensor) else self.scale)

    @staticmethod
    def _outer(bias: Tensor | None, norm: QKNorm | None) -> Tensor | None:
        """The part of a bias that is added to the finished vector."""
        return bias if norm is None else norm.bias


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
        mean: ``[d]`` fp32. root: ``[d, d]`` fp32, a lower triangular square root of the second moment. unit_root: that
            of unit vectors.
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
        for a, b in _steps(d):
            gram[0, a:b, :b].addmm_(x[:, a:b].T, x[:, :b])
            gram[1, a:b, :b] += unit[:, a:b].T @ unit[:, :b]
    roots = [_root(g / m).float() for g in gram]
    return Partners((mean / m).float(), roots[0], roots[1])


def _unit(x: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x / torch.where(norm > 0, norm, 1.0)


def _steps(d: int) -> list[tuple[int, int]]:
    """Bands of a triangle of side ``d``: products band by band spare three eighths of the square."""
    step = max(1, -(-d // 4))
    return [(a, min(a + step, d)) for a in range(0, d, step)]


def _root(moment: Tensor) -> Tensor:
    """``L`` with ``L Lᵀ`` the moment whose lower triangle is given; it may be singular."""
    root, failed = torch.linalg.cholesky_ex(moment)
    if not failed.item():
        return root
    values, axes = torch.linalg.eigh(moment)
    return torch.linalg.qr((axes * values.clamp_min(0).sqrt()).T).R.T


def _norms(x: Tensor, root: Tensor) -> Tensor:
    """``|x L|`` of each row, ``[n]``."""
    parts = [torch.linalg.vector_norm(x[:, a:] @ root[a:, a:b], dim=1) for a, b in _steps(len(root))]
    return torch.linalg.vector_norm(torch.stack(parts), dim=0)


def closed_forms(vectors: Tensor, against: Partners, gain: Tensor, usual_gain: float) -> dict[str, Tensor]:
    """Root mean square, mean, RMS cosine and gain of each vector ``[n, d]`` against the other side's partners."""
    n = len(vectors)
    rms, mean, cosine = torch.empty((3, n), dtype=vectors.dtype, device=vectors.device)
    for a in range(0, n, BLOCK):
        x, mine = vectors[a : a + BLOCK], slice(a, a + BLOCK)
        rms[mine] = _norms(x, against.root)
        mean[mine] = x @ against.mean
        cosine[mine] = _norms(_unit(x), against.unit_root)
    return {
        "rms": rms,
        "mean": mean,
        "cos_rms": cosine,
        "gain": gain / usual_gain if usual_gain > 0 else torch.full_like(gain, float("nan")),
    }
