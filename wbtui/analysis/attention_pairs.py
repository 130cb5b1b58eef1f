"""The pass over pairs of one head: tiles of queries against all keys, reduced on both sides, nothing n × n kept.

Row statistics (a query over its keys) are whole after each tile. Column statistics (a key over its queries) are
added up in groups of 32 rows, fp32 within a group and fp64 across, so that they do not depend on the tile's height.
Scores are uncapped and without biases; the softcap and the biases act inside the softmax alone (methods 1.3, 3.2).
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wbtui.analysis.streaming import CHUNK_DEVICE, Stop, TileBuffer, padded, poll, top_k
from wbtui.analysis.tokens import Progress

GROUP = 32
TILE = 128
TOP = 5
WIDTH = 1024
"""Columns of a chunk on a CPU: of 128 rows half a megabyte, so that chunk and scratch stay in a core's own cache."""


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
        self._first = torch.zeros(m, dtype=torch.int64, device=device)

    def best(self, a: int, b: int, scores: Tensor, first: int) -> None:
        """Take the column maxima of ``scores``, which are columns a to b of the tile of queries that begins at
        ``first``; of equal ones the first tile stays."""
        top = scores.amax(0)
        better = top > self.max[a:b]
        torch.where(better, top, self.max[a:b], out=self.max[a:b])
        self._first[a:b].masked_fill_(better, first)

    def locate(self, q: Tensor, k: Tensor, tile: int, buffer: TileBuffer, stop: Stop | None = None) -> None:
        """Find the rows of the maxima, once the pass is over: one more product of each key with the one tile of
        queries that holds its maximum (``tile / n`` of the pass), instead of a search in every tile."""
        for first in self._first.unique().tolist():
            poll(stop)
            mine = (self._first == first).nonzero().flatten()
            scores = _product(q[first : first + tile], k[mine], buffer)
            rows = torch.arange(len(scores), device=scores.device)[:, None]
            hit = torch.where(scores == scores.amax(0), rows, len(scores))
            self.argmax[mine] = hit.amin(0) + first


def _chunks(x: Tensor) -> list[tuple[int, int]]:
    width = WIDTH if x.device.type == "cpu" else CHUNK_DEVICE
    return [(a, min(x.shape[1], a + width)) for a in range(0, x.shape[1], width)]


@contextlib.contextmanager
def _flushed() -> Iterator[None]:
    """Treat numbers below 1e-38 as zero in this thread: far down a softmax they cost a CPU up to ten times as much."""
    before = _is_flushing()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def _is_flushing() -> bool:
    return not bool((torch.tensor(1e-30) * torch.tensor(1e-10)) > 0)


def _group_sums(x: Tensor) -> Tensor:
    """Column sums ``[m]`` fp64 of ``x [t, m]``: fp32 within groups of 32 rows, fp64 across."""
    t, m = x.shape
    whole = t // GROUP * GROUP
    out = torch.zeros(m, dtype=torch.float64, device=x.device)
    if whole:
        out += x[:whole].unflatten(0, (-1, GROUP)).sum(1).double().sum(0)
    if whole < t:
        out += x[whole:].sum(0).double()
    return out


def _weighted_group_sums(x: Tensor, weights: Tensor) -> Tensor:
    """The same of rows that are first multiplied by ``weights [t]``."""
    t, m = x.shape
    whole = t // GROUP * GROUP
    out = torch.zeros(m, dtype=torch.float64, device=x.device)
    if whole:
        rows = weights[:whole].view(-1, 1, GROUP)
        out += torch.bmm(rows, x[:whole].unflatten(0, (-1, GROUP)))[:, 0].double().sum(0)
    if whole < t:
        out += torch.mv(x[whole:].T, weights[whole:]).double()
    return out


def _product(rows: Tensor, others: Tensor, buffer: TileBuffer) -> Tensor:
    """``rows @ others.T`` into the buffer, in a tile padded to a multiple of ``TILE_STEP`` rows."""
    t = len(rows)
    if padded(t) != t:
        rows = torch.nn.functional.pad(rows, (0, 0, 0, padded(t) - t))
    out = buffer.get("scores", len(rows), len(others))
    torch.mm(rows, others.T, out=out)
    return out[:t]


def _sizes(
    scores: Tensor, buffer: TileBuffer, columns: ColumnSums | None, first: int, peaks: bool
) -> tuple[Tensor, Tensor | None]:
    """Row sums of |scores| ``[t]`` fp64 and, with ``peaks``, row maxima; column sums and maxima go to ``columns``.

    Chunk by chunk: each is read from memory once, everything else happens in the core's cache.
    """
    t = len(scores)
    bounds = _chunks(scores)
    sums = torch.empty((t, len(bounds)), device=scores.device)
    tops = torch.empty((t, len(bounds)), device=scores.device) if peaks else None
    for j, (a, b) in enumerate(bounds):
        chunk = scores[:, a:b]
        y = torch.abs(chunk, out=buffer.get("scratch", t, b - a))
        torch.sum(y, dim=1, out=sums[:, j])
        if tops is not None:
            torch.amax(chunk, dim=1, out=tops[:, j])
        if columns is not None:
            columns.abs[a:b] += _group_sums(y)
            columns.best(a, b, chunk, first)
    return sums.double().sum(1), None if tops is None else tops.amax(1)


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
    partners: bool = True,
    stop: Stop | None = None,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """Row statistics of queries against keys, and, with ``columns``, the key side of the same pairs.

    Args:
        q: ``[n, d]``, score multiplier included; k: ``[m, d]``, turned.
        q_terms: ``[n]``; k_terms: ``[m]``: bias terms.
        tile: queries at once, a multiple of 32.
        partners: also who the maxima are, the five largest masses and the entropy.

    Returns:
        ``mean_abs``, ``max``, ``log_z`` (log of the partition sum, sink
        included), and with ``partners`` ``top1``, ``top5``, ``conc``
        fp64 ``[n]`` and ``argmax`` int64 ``[n]``, a row of ``k``.

    Raises:
        Cancelled: the stop flag went up.
    """
    n, m = len(q), len(k)
    tile = max(GROUP, tile // GROUP * GROUP)
    parts: list[dict[str, Tensor]] = []
    with _flushed():
        for a in range(0, n, tile):
            poll(stop)
            scores = _product(q[a : a + tile], k, buffer)
            sums, peaks = _sizes(scores, buffer, columns, a, peaks=not partners)
            found = {"mean_abs": sums / m}
            values = peaks[:, None] if peaks is not None else None
            if partners:
                values, index = top_k(scores, TOP)
                found["argmax"] = index[:, 0]
            assert values is not None
            found["max"] = values[:, 0].double()
            poll(stop)
            parts.append(
                found | _attend(scores, values, q_terms[a : a + tile], k_terms, softmax, buffer, columns, partners)
            )
            if progress is not None:
                progress(min(n, a + tile), n)
        if columns is not None and partners:
            columns.locate(q, k, tile, buffer, stop)
    return {name: torch.cat([p[name] for p in parts]) for name in parts[0]}


def _attend(
    scores: Tensor,
    values: Tensor,
    row_terms: Tensor,
    column_terms: Tensor,
    softmax: Softmax,
    buffer: TileBuffer,
    columns: ColumnSums | None,
    partners: bool,
) -> dict[str, Tensor]:
    """The softmax of each row of a tile, in place: partition and, with ``partners``, entropy and top masses.

    Args:
        values: ``[t, k]`` the largest scores of each row, best first. Where biases join, they are sought anew.
    """
    t, m = scores.shape
    bounds = _chunks(scores)
    sums = torch.empty((2, t, len(bounds)), device=scores.device)
    if softmax.biased:
        softmax.logits_(scores, row_terms, column_terms, False)
        best = (top_k(scores, TOP)[0] if partners else scores.amax(1, keepdim=True)).double()
        cap = None
    else:
        cap = softmax.softcap  # it keeps the order, so the largest scores are the largest logits
        best = values.double() if cap is None else (values * (1 / cap)).tanh().double() * cap
    # exp2: torch's CPU exp is several times slower, or worse where it underflows
    unit = (1.0 if cap is None else cap) / math.log(2.0)
    # the peak goes first, so that the largest logits keep their digits however large the scores are
    peak = (best[:, :1] if cap is None else best[:, :1] / cap).float()
    for j, (a, b) in enumerate(bounds):
        chunk = scores[:, a:b]
        if cap is not None:
            chunk.mul_(1 / cap).tanh_()
        if not partners:
            e = chunk.sub_(peak).mul_(unit).exp2_()
            torch.sum(e, dim=1, out=sums[0, :, j])
            continue
        y = torch.sub(chunk, peak, out=buffer.get("scratch", t, b - a)).mul_(unit)
        e = torch.exp2(y, out=chunk)
        torch.sum(e, dim=1, out=sums[0, :, j])
        torch.sum(y.mul_(e), dim=1, out=sums[1, :, j])
    z = sums[0].double().sum(1)
    over_keys = z.log() + best[:, 0]
    kept = softmax.left_by_sink(over_keys)
    if columns is not None:
        columns.received += _weighted_group_sums(scores, (kept / z).float())
    found = {"log_z": softmax.with_sink(over_keys)}
    if partners:
        entropy = z.log() - math.log(2.0) * sums[1].double().sum(1) / z
        masses = (best - best[:, :1]).exp() / z[:, None] * kept[:, None]
        found |= {
            "top1": masses[:, 0],
            "top5": masses.sum(1).clamp_max(1.0),
            "conc": 1 - entropy / math.log(m) if m > 1 else torch.zeros_like(z),
        }
    return found


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
        sums, _ = _sizes(scores, buffer, None, a, peaks=False)
        found = {"mean_abs": sums / m, "max": values[:, 0].double(), "argmax": index[:, 0]}
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
