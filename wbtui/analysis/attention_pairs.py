"""The pass over pairs of one head: tiles of queries against all keys, reduced on both sides, nothing n × n kept.

Row statistics (a query over its keys) are whole after each tile. Column statistics (a key over its queries) are
added up in groups of 32 rows, fp32 within a group and fp64 across, so that they do not depend on the tile's height.
Scores are uncapped and without biases; the softcap and the biases act inside the softmax alone (methods 1.3, 3.2).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wbtui.analysis.streaming import CHUNK, CHUNK_DEVICE, Stop, TileBuffer, padded, poll, top_k
from wbtui.analysis.tokens import Progress

GROUP = 32
TILE = 128
TOP = 5


@dataclass(frozen=True)
class Softmax:
    """What stands between scores and the softmax: the cap, and the biases' terms where they count.

    Attributes:
        softcap: c of ``c tanh(S / c)``, or None.
        biased: whether query and key terms join the scores.
        sink: a logit that joins each query's softmax beside the keys, or None. It takes its share of the attention, so
            a row's masses sum below 1; how concentrated the rest is (``conc``) is told of the keys alone.
    """

    softcap: float | None
    biased: bool
    sink: float | None = None

    def with_sink(self, log_z: Tensor) -> Tensor:
        """Log partition sums over keys with the sink joined."""
        return log_z if self.sink is None else torch.logaddexp(log_z, torch.full_like(log_z, self.sink))

    def left_by_sink(self, log_z: Tensor) -> Tensor:
        """The share of the attention that goes to keys, from the log partition sums over keys."""
        return (log_z - self.with_sink(log_z)).exp()

    def logits_(self, scores: Tensor, row_terms: Tensor, column_terms: Tensor, keys_in_rows: bool) -> Tensor:
        """Scores ``[t, m]`` to logits, in place. A query's own term cancels in its softmax unless a cap follows, or a
        sink, which has no such term, stands beside the keys."""
        if self.biased:
            query, key = (column_terms, row_terms[:, None]) if keys_in_rows else (row_terms[:, None], column_terms)
            scores += key
            if self.softcap is not None or self.sink is not None:
                scores += query
        if self.softcap is not None:
            scores.mul_(1 / self.softcap).tanh_().mul_(self.softcap)
        return scores


class ColumnSums:
    """Key-side sums over all queries of a pass: ``[m]`` each."""

    def __init__(self, m: int, device: torch.device) -> None:
        self.abs = torch.zeros(m, dtype=torch.float64, device=device)
        self.received = torch.zeros(m, dtype=torch.float64, device=device)
        self.max = torch.full((m,), -math.inf, device=device)
        self.argmax = torch.zeros(m, dtype=torch.int64, device=device)

    def best(self, scores: Tensor, first: int) -> None:
        """Take a tile's column maxima; of equal ones the first row stays."""
        top = scores.amax(0)
        better = (top > self.max).nonzero().flatten()
        if not len(better):
            return
        self.max[better] = top[better]
        rows = torch.arange(len(scores), device=scores.device)[:, None]
        hit = torch.where(scores[:, better] == top[better], rows, len(scores))
        self.argmax[better] = hit.amin(0) + first


def _chunks(x: Tensor) -> list[tuple[int, int]]:
    width = CHUNK if x.device.type == "cpu" else CHUNK_DEVICE
    return [(a, min(x.shape[1], a + width)) for a in range(0, x.shape[1], width)]


def _groups(t: int) -> list[tuple[int, int]]:
    return [(a, min(t, a + GROUP)) for a in range(0, t, GROUP)]


def _product(rows: Tensor, others: Tensor, buffer: TileBuffer) -> Tensor:
    """``rows @ others.T`` into the buffer, in a tile padded to a multiple of ``TILE_STEP`` rows."""
    t = len(rows)
    if padded(t) != t:
        rows = torch.nn.functional.pad(rows, (0, 0, 0, padded(t) - t))
    out = buffer.get("scores", len(rows), len(others))
    torch.mm(rows, others.T, out=out)
    return out[:t]


def _abs_sums(scores: Tensor, buffer: TileBuffer, columns: ColumnSums | None) -> Tensor:
    """Row sums of |scores| ``[t]`` fp64; column sums go to ``columns``."""
    t = len(scores)
    bounds = _chunks(scores)
    sums = torch.empty((t, len(bounds)), device=scores.device)
    for j, (a, b) in enumerate(bounds):
        y = torch.abs(scores[:, a:b], out=buffer.get("scratch", t, b - a))
        torch.sum(y, dim=1, out=sums[:, j])
        if columns is not None:
            for low, high in _groups(t):
                columns.abs[a:b] += y[low:high].sum(0).double()
    return sums.double().sum(1)


def query_pass(
    q: Tensor,
    q_terms: Tensor,
    k: Tensor,
    k_terms: Tensor,
    softmax: Softmax,
    buffer: TileBuffer,
    *,
    tile: int = TILE,
    columns: ColumnSums | None = None,
    stop: Stop | None = None,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """Row statistics of queries against keys, and, with ``columns``, the key side of the same pairs.

    Args:
        q: ``[n, d]``, score multiplier included; k: ``[m, d]``, turned.
        q_terms: ``[n]``; k_terms: ``[m]``: bias terms.
        tile: queries at once, a multiple of 32.

    Returns:
        ``mean_abs``, ``max``, ``top1``, ``top5``, ``conc``, ``log_z`` (log of the partition sum, sink
        included) fp64 ``[n]`` and ``argmax`` int64 ``[n]``, a row of ``k``.

    Raises:
        Cancelled: the stop flag went up.
    """
    n, m = len(q), len(k)
    tile = max(GROUP, tile // GROUP * GROUP)
    parts: list[dict[str, Tensor]] = []
    for a in range(0, n, tile):
        poll(stop)
        scores = _product(q[a : a + tile], k, buffer)
        found = {"mean_abs": _abs_sums(scores, buffer, columns) / m}
        if columns is not None:
            columns.best(scores, a)
        values, index = top_k(scores, TOP)
        found["max"], found["argmax"] = values[:, 0].double(), index[:, 0]
        poll(stop)
        logits = softmax.logits_(scores, q_terms[a : a + tile], k_terms, False)
        best = top_k(logits, TOP)[0] if softmax.biased else logits.gather(1, index)
        parts.append(found | _attend(logits, best.double(), softmax, buffer, columns))
        if progress is not None:
            progress(min(n, a + tile), n)
    return {name: torch.cat([p[name] for p in parts]) for name in parts[0]}


def _attend(
    logits: Tensor, best: Tensor, softmax: Softmax, buffer: TileBuffer, columns: ColumnSums | None
) -> dict[str, Tensor]:
    """The softmax of each row, in place: partition, entropy, top masses; its column sums go to ``columns``."""
    t, m = logits.shape
    bounds = _chunks(logits)
    sums = torch.empty((2, t, len(bounds)), device=logits.device)
    peak = best[:, :1].float()
    for j, (a, b) in enumerate(bounds):
        y = torch.sub(logits[:, a:b], peak, out=buffer.get("scratch", t, b - a)).mul_(1 / math.log(2.0))
        # exp2: torch's CPU exp is four times slower and worse where it underflows
        e = torch.exp2(y, out=logits[:, a:b])
        torch.sum(e, dim=1, out=sums[0, :, j])
        torch.sum(y.mul_(e), dim=1, out=sums[1, :, j])
    z, weighted = sums[0].double().sum(1), sums[1].double().sum(1)
    over_keys = z.log() + best[:, 0]
    kept = softmax.left_by_sink(over_keys)
    if columns is not None:
        weights = (kept / z).float()
        for a, b in bounds:
            for low, high in _groups(t):
                columns.received[a:b] += torch.mv(logits[low:high, a:b].T, weights[low:high]).double()
    entropy = z.log() - math.log(2.0) * weighted / z
    masses = (best - best[:, :1]).exp() / z[:, None] * kept[:, None]
    return {
        "top1": masses[:, 0],
        "top5": masses.sum(1).clamp_max(1.0),
        "conc": 1 - entropy / math.log(m) if m > 1 else torch.zeros_like(z),
        "log_z": softmax.with_sink(over_keys),
    }


def key_pass(
    k: Tensor,
    k_terms: Tensor,
    q: Tensor,
    q_terms: Tensor,
    log_z: Tensor | None,
    softmax: Softmax,
    buffer: TileBuffer,
    *,
    joins: bool,
    n_queries: int,
    tile: int = TILE,
    stop: Stop | None = None,
) -> dict[str, Tensor]:
    """Row statistics of keys against queries: random directions, lone features, and samples of queries.

    Args:
        k: ``[n, d]``; q: ``[m, d]``; k_terms ``[n]``, q_terms ``[m]``.
        log_z: ``[m]`` the queries' partition sums over the features' keys, from :func:`query_pass`; None leaves
            ``received`` out.
        joins: the keys are no features, so each joins the features as one more key: its mass is ``e / (Z + e)``, times
            ``(n + 1) / n`` so that uniform attention gives 1 as it does for features. Without that factor a null of
            small scores would lie below every feature.
        n_queries: all features, of whose queries ``q`` may be a sample; ``received`` is scaled to them.

    Returns:
        ``mean_abs``, ``max`` fp64, ``argmax`` int64 (a row of ``q``) and ``received`` fp64 ``[n]``.
    """
    n, m = len(k), len(q)
    parts: list[dict[str, Tensor]] = []
    for a in range(0, n, tile):
        poll(stop)
        scores = _product(k[a : a + tile], q, buffer)
        values, index = top_k(scores, 1)
        found = {"mean_abs": _abs_sums(scores, buffer, None) / m, "max": values[:, 0].double(), "argmax": index[:, 0]}
        if log_z is not None:
            logits = softmax.logits_(scores, k_terms[a : a + tile], q_terms, True)
            logits -= log_z.float()
            mass = logits.sigmoid_() if joins else logits.exp_()
            found["received"] = mass.sum(1).double() * ((n_queries + 1 if joins else n_queries) / m)
        parts.append(found)
    return {name: torch.cat([p[name] for p in parts]) for name in parts[0]}


def upper_quartile(
    x: Tensor, others: Tensor, buffer: TileBuffer, *, tile: int = TILE, stop: Stop | None = None
) -> Tensor:
    """The 75th percentile (linear between neighbours) of |<x_i, others_j>| over j: fp32 ``[n]``."""
    m = len(others)
    rank = 0.75 * (m - 1)
    low = int(rank)
    share = rank - low
    out = []
    for a in range(0, len(x), tile):
        poll(stop)
        scores = _product(x[a : a + tile], others, buffer).abs_()
        # partial sorting by numpy is several times faster than torch's selection on a CPU
        ordered = scores.numpy() if scores.device.type == "cpu" else scores.cpu().numpy()
        ordered.partition(low, axis=1)
        lower = ordered[:, low].copy()
        upper = ordered[:, low + 1 :].min(1) if low + 1 < m else lower
        out.append(torch.from_numpy(lower + share * (upper - lower)).to(x.device).float())
    return torch.cat(out)


def sample(n: int, m: int, seed: int, what: str) -> Tensor | None:
    """``m`` of ``n`` rows, seeded, ascending; None where all are taken."""
    if n <= m:
        return None
    digest = hashlib.sha256(f"wbtui attention {what} {n} {m} {seed}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:4], "little"))
    return torch.randperm(n, generator=generator)[:m].sort().values


def as_ids(index: Tensor, ids: Tensor) -> np.ndarray:
    """Rows of a side to feature numbers, int32."""
    return ids[index].to(torch.int32).cpu().numpy()
