"""The pass over pairs of one head: tiles of queries against all keys, reduced on both sides, nothing n × n kept.

Row statistics (a query over its keys) are whole after each tile. Column statistics (a key over its queries) are
added up in groups of 128 rows, fp32 within a group and fp64 across, so that they do not depend on the tile's height.
Scores are uncapped and without biases; the softcap and the biases act inside the softmax alone (methods 1.3, 3.2).
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from wbtui.analysis.attention_tile import GROUP, REACH, WIDTH, Softmax, Tile, in_chunks
from wbtui.analysis.streaming import CHUNK_DEVICE, Stop, TileBuffer, padded, poll, slices, top_k
from wbtui.analysis.tokens import Progress

TILE = 128
TOP = 5
AT_ONCE = 16
"""Chunks that a thread goes through without looking whether it should stop: about ten milliseconds."""


class ColumnSums:
    """Key-side sums over all queries of a pass: ``[m]`` each."""

    def __init__(self, m: int, device: torch.device) -> None:
        self.abs = torch.zeros(m, dtype=torch.float64, device=device)
        self.received = torch.zeros(m, dtype=torch.float64, device=device)
        self.max = torch.full((m,), -math.inf, device=device)
        self.argmax = torch.zeros(m, dtype=torch.int64, device=device)
        self._first = torch.zeros(m, dtype=torch.int64, device=device)

    def add(self, tile: Tile, first: int, *, locate: bool) -> None:
        """Take the sums and maxima of the tile of queries that begins at ``first``; of equal maxima the first tile
        stays. ``locate``: they will be sought afterwards."""
        self.abs += tile.column_sums.sum(0, dtype=torch.float64)
        if locate:
            self._first.masked_fill_(tile.column_tops > self.max, first)
        torch.maximum(self.max, tile.column_tops, out=self.max)

    def settle(self, scale: float) -> None:
        """Bring the sums of a whole pass, whose scores were multiplied by ``scale``, to natural units."""
        self.abs /= scale
        self.max = (self.max.double() / scale).float()

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


def _product(rows: Tensor, others: Tensor, buffer: TileBuffer) -> Tensor:
    """``rows @ others.T`` into the buffer, in a tile padded to a multiple of ``TILE_STEP`` rows."""
    t = len(rows)
    if padded(t) != t:
        rows = torch.nn.functional.pad(rows, (0, 0, 0, padded(t) - t))
    out = buffer.get("scores", len(rows), len(others))
    torch.mm(rows, others.T, out=out)
    return out[:t]


def _abs_sums(scores: Tensor, buffer: TileBuffer) -> Tensor:
    """Row sums of |scores| ``[t]`` fp64, chunk by chunk."""
    bounds = slices(scores.shape[1], WIDTH if scores.device.type == "cpu" else CHUNK_DEVICE)
    sums = torch.empty((len(bounds), len(scores)), device=scores.device)
    for j, (a, b) in enumerate(bounds):
        torch.sum(torch.abs(scores[:, a:b], out=buffer.get("scratch", len(scores), b - a)), dim=1, out=sums[j])
    return sums.double().sum(0)


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
        tile: queries at once, a multiple of 128.
        partners: also who the maxima are, the five largest masses and the entropy.

    Returns:
        ``mean_abs``, ``max``, ``log_z`` (log of the partition sum, sink
        included), and with ``partners`` ``top1``, ``top5``, ``conc``
        fp64 ``[n]`` and ``argmax`` int64 ``[n]``, a row of ``k``.

    Raises:
        Cancelled: the stop flag went up.
    """
    n = len(q)
    tile = max(GROUP, tile // GROUP * GROUP)
    if k.device.type == "cpu":
        tile = min(tile, TILE)  # higher ones leave the core's cache
    tiles: dict[int, Tile] = {}  # the last one may be less high
    safe, keys = _safe(q, k, softmax), in_chunks(k)
    parts: list[dict[str, Tensor]] = []
    with _flushed():
        for a in range(0, n, tile):
            poll(stop)
            mine = slice(a, a + tile)
            rows = q[mine]
            if len(rows) not in tiles:
                wanted = {"columns": columns is not None, "entropy": partners, "safe": safe}
                tiles[len(rows)] = Tile(len(rows), k, keys, softmax, buffer, **wanted)
            parts.append(_reduce(tiles[len(rows)], rows, q_terms[mine], k_terms, softmax, columns, a, partners, stop))
            if progress is not None:
                progress(min(n, a + tile), n)
        if columns is not None:
            columns.settle(softmax.scale)
        if columns is not None and partners:
            columns.locate(q, k, tile, buffer, stop)
    return {name: torch.cat([p[name] for p in parts]) for name in parts[0]}


def _reduce(
    tile: Tile,
    q: Tensor,
    q_terms: Tensor,
    k_terms: Tensor,
    softmax: Softmax,
    columns: ColumnSums | None,
    first: int,
    partners: bool,
    stop: Stop | None,
) -> dict[str, Tensor]:
    """One tile of :func:`query_pass`: its queries ``[t, d]`` begin at row ``first``."""
    t, m = tile.rows, len(k_terms)
    rows = torch.nn.functional.pad(q * softmax.scale, (0, 0, 0, padded(t) - t))
    count = len(tile.bounds)
    for j in range(0, count, AT_ONCE) if tile.plain else ():
        poll(stop)
        tile.at_once(j, min(j + AT_ONCE, count), rows)
    for j in range(count) if not tile.plain else ():
        poll(stop)
        tile.multiply(j, rows)
        if not partners:
            if softmax.biased:
                tile.biased(j, q_terms, k_terms)
            tile.exponentiate(j)
    found = {"mean_abs": tile.sums.double().sum(0) / (m * softmax.scale)}
    if columns is not None:
        columns.add(tile, first, locate=partners)
    if partners:
        best, index = top_k(tile.scores, TOP)
        found["argmax"] = index[:, 0]
        found["max"] = best[:, 0].double() / softmax.scale
        if softmax.biased:
            for j in range(len(tile.bounds)):
                tile.biased(j, q_terms, k_terms)
            best = top_k(tile.scores, TOP)[0]
        elif softmax.softcap is not None:
            best = best.tanh()
        for j in range(len(tile.bounds)):
            poll(stop)
            tile.exponentiate(j)
    else:
        found["max"] = tile.tops.amax(0).double() / softmax.scale
    z, level = tile.finish()
    over_keys = z.log() + level
    kept = softmax.left_by_sink(over_keys)
    if columns is not None:
        columns.received += tile.received(kept / z).sum(0, dtype=torch.float64)
    found["log_z"] = softmax.with_sink(over_keys)
    if partners:
        masses = (best.double() * softmax.natural - level[:, None]).exp() / z[:, None] * kept[:, None]
        found |= {
            "top1": masses[:, 0],
            "top5": masses.sum(1).clamp_max(1.0),
            "conc": 1 - tile.entropy(z) / math.log(m) if m > 1 else torch.zeros_like(z),
        }
    return found


def _safe(q: Tensor, k: Tensor, softmax: Softmax) -> bool:
    """Whether no logit can leave fp32's exponents: by the cap, or because no product exceeds its vectors' lengths."""
    if softmax.biased:
        return False
    if softmax.softcap is not None:
        return softmax.softcap / math.log(2.0) < REACH
    longest = torch.linalg.vector_norm(q, dim=1).amax() * torch.linalg.vector_norm(k, dim=1).amax()
    return float(longest) / math.log(2.0) < REACH


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
        sums = _abs_sums(scores, buffer)
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
