"""A head's record: every column of ``attention`` for all features, and the same columns for random directions.

Random directions go against the real features, never against each other (methods 1.3, "The null here"): as queries
against the features' keys, as keys against the features' queries, each joining the features as one more key. ``b_dec``
and a lone feature take the same way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wbtui import schema_attention as schema
from wbtui.analysis import nulls
from wbtui.analysis.attention import Head, Rows, Vectors, closed_forms, partners, project
from wbtui.analysis.attention_pairs import (
    TILE,
    ColumnSums,
    as_ids,
    key_pass,
    query_pass,
    sample,
    upper_quartile,
)
from wbtui.analysis.attention_tile import Softmax
from wbtui.analysis.rope import turn
from wbtui.analysis.streaming import Stop, TileBuffer
from wbtui.analysis.tokens import Progress
from wbtui.definitions import AttentionDefinition


@dataclass
class Usual:
    """Median length of random directions' projections as query and key: what gains are measured in."""

    query: float
    key: float


def usual_gains(head: Head, definition: AttentionDefinition, d_model: int, device: torch.device) -> Usual:
    """The medians over ``gain_directions`` seeded isotropic directions."""
    random = nulls.directions("isotropic", definition.gain_directions, definition.seed, d_model=d_model)
    vectors = project(head, lambda: [random], definition, device)
    return Usual(float(vectors.q_gain.median()), float(vectors.k_gain.median()))


@dataclass
class Members:
    """The features of one head, prepared: what a record of anything against them needs."""

    vectors: Vectors
    softmax: Softmax
    queries: Tensor | None
    keys: Tensor | None
    """Sampled rows of ``vectors`` that stand for all as partners; None where all pairs are taken."""

    @property
    def n(self) -> int:
        """Usable features."""
        return len(self.vectors.ids)

    def as_keys(self) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors, terms and feature numbers of the keys that queries are held against."""
        v = self.vectors
        return _pick(v.k, self.keys), _pick(v.k_terms, self.keys), _pick(v.ids, self.keys)

    def as_queries(self) -> tuple[Tensor, Tensor, Tensor]:
        """The same of the queries that keys are held against."""
        v = self.vectors
        return _pick(v.q, self.queries), _pick(v.q_terms, self.queries), _pick(v.ids, self.queries)

    @property
    def missing_log(self) -> float:
        """What a partition sum over sampled keys lacks, in logs."""
        return 0.0 if self.keys is None else math.log(self.n / len(self.keys))


def _pick(x: Tensor, rows: Tensor | None) -> Tensor:
    return x if rows is None else x[rows.to(x.device)]


def members(head: Head, vectors: Vectors, definition: AttentionDefinition) -> Members:
    """Prepare a head's features, with sampled partners above ``pairs_below``."""
    n, large = len(vectors.ids), vectors.n > definition.pairs_below
    queries, keys = (
        sample(n, definition.n_key, definition.seed, f"{side} partners") if large else None
        for side in schema.HEAD_SIDES
    )
    missing = 0.0 if keys is None else math.log(n / len(keys))
    # beside a sample of the keys a sink must weigh as little as it does beside all of them
    sink = None if head.sink is None else head.sink - missing
    return Members(vectors, Softmax(head.softcap, head.biased and definition.bias, sink), queries, keys)


def partition_sums(of: Members, buffer: TileBuffer, *, tile: int = TILE, stop: Stop | None = None) -> Tensor:
    """Log partition sums ``[m]`` of the features' queries (the sampled ones, where there is a sample)."""
    q, terms, _ = of.as_queries()
    k, k_terms, _ = of.as_keys()
    return query_pass(q, terms, k, k_terms, of.softmax, buffer, tile=tile, stop=stop)["log_z"] + of.missing_log


def feature_record(
    head: Head,
    of: Members,
    definition: AttentionDefinition,
    usual: Usual,
    buffer: TileBuffer,
    *,
    tile: int = TILE,
    stop: Stop | None = None,
    progress: Progress | None = None,
) -> tuple[Rows, Tensor]:
    """Every column of one head for all features.

    Returns:
        ``schema_attention.attention_columns()`` by name, ``[n]`` each over all features, unusable ones absent; and the
        log partition sums of :func:`partition_sums`, which come on the way.

    Raises:
        Cancelled: the stop flag went up.
    """
    v = of.vectors
    k, k_terms, k_ids = of.as_keys()
    passing: dict[str, Any] = {"tile": tile, "stop": stop}
    if of.keys is None:
        columns = ColumnSums(of.n, v.k.device)
        query = query_pass(
            v.q, v.q_terms, k, k_terms, of.softmax, buffer, columns=columns, progress=progress, **passing
        )
        log_z = query["log_z"]
        key = {
            "mean_abs": columns.abs / of.n,
            "max": columns.max.double(),
            "argmax": columns.argmax,
            "received": columns.received,
        }
        q_ids = v.ids
    else:
        query = query_pass(v.q, v.q_terms, k, k_terms, of.softmax, buffer, progress=progress, **passing)
        log_z = _pick(query["log_z"], of.queries) + of.missing_log
        q, q_terms, q_ids = of.as_queries()
        key = key_pass(v.k, v.k_terms, q, q_terms, log_z, of.softmax, buffer, joins=False, n_queries=of.n, **passing)
    whole = _columns(head, v, of, definition, usual, query, key, k_ids, q_ids, buffer, tile, stop)
    return _finish(whole, v), log_z


def direction_record(
    head: Head,
    of: Members,
    log_z: Tensor | None,
    directions: Vectors,
    definition: AttentionDefinition,
    usual: Usual,
    buffer: TileBuffer,
    *,
    joins: bool = True,
    tile: int = TILE,
    stop: Stop | None = None,
) -> Rows:
    """The same columns for directions against the features.

    Args:
        log_z: from :func:`partition_sums`; None leaves ``key.received`` absent.
        directions: from :func:`~wbtui.analysis.attention.project`.
        joins: False for a feature of this dictionary, which is among the keys already.
    """
    k, k_terms, k_ids = of.as_keys()
    q, q_terms, q_ids = of.as_queries()
    v = directions
    query = query_pass(v.q, v.q_terms, k, k_terms, of.softmax, buffer, tile=tile, stop=stop)
    key = key_pass(
        v.k, v.k_terms, q, q_terms, log_z, of.softmax, buffer, joins=joins, n_queries=of.n, tile=tile, stop=stop
    )
    whole = _columns(head, v, of, definition, usual, query, key, k_ids, q_ids, buffer, tile, stop)
    return _finish(whole, v)


def _columns(
    head: Head,
    v: Vectors,
    of: Members,
    definition: AttentionDefinition,
    usual: Usual,
    query: dict[str, Tensor],
    key: dict[str, Tensor],
    k_ids: Tensor,
    q_ids: Tensor,
    buffer: TileBuffer,
    tile: int,
    stop: Stop | None,
) -> Rows:
    """Both sides' columns of the usable rows ``v``, closed forms and quartiles joined to the passes."""
    own = of.vectors
    found: dict[str, Tensor | np.ndarray] = {}
    sides: tuple[tuple[str, Tensor, Tensor, Tensor, float, dict[str, Tensor], Tensor], ...] = (
        ("query", v.q, own.k, v.q_gain, usual.query, query, k_ids),
        ("key", v.k, own.q, v.k_gain, usual.key, key, q_ids),
    )
    for side, vectors, others, gain, usual_gain, passed, ids in sides:
        closed = closed_forms(vectors, partners(others, stop), gain, usual_gain)
        chosen = sample(len(others), definition.p75_below, definition.seed, f"{side} p75")
        closed["p75"] = upper_quartile(vectors, _pick(others, chosen), buffer, tile=tile, stop=stop)
        partner = _pick(others, _rows_of(own.ids, ids[passed["argmax"]]))
        lengths = torch.linalg.vector_norm(vectors, dim=1) * torch.linalg.vector_norm(partner, dim=1)
        closed["max_cos"] = passed["max"] / torch.where(lengths > 0, lengths, 1.0)
        found |= {f"{side}.{name}": value for name, value in (closed | passed).items()}
        found[f"{side}.partner"] = as_ids(passed["argmax"], ids)
    found["key.prior"] = v.k_terms
    if head.bound:  # no softmax is taken of bounds: they are of different offsets
        for name in ("query.top1", "query.top5", "query.conc", "key.received"):
            found.pop(name, None)
    wanted = schema.attention_columns()
    return {
        name: value if isinstance(value, np.ndarray) else value.cpu().numpy()
        for name, value in found.items()
        if name in wanted
    }


def stability(q: Tensor, k: Tensor, frequencies: list[float], window: int | None = None) -> np.ndarray:
    """How much of a head's scores an offset leaves: cosine of all pairs' scores at 0 and at each offset (methods 3.4).

    With a key row turned to ``k T``, ``sum_ij S_ij(0) S_ij(offset) = tr(G_Q T^T G_K)``: no pass over pairs.

    Args:
        q, k: ``[m, d_head]`` of all features, not turned.
        frequencies: the head's angles per position.
        window: keys that a query can see; offsets beyond are absent. None for all.

    Returns:
        ``[len(schema_attention.STABILITY_OFFSETS)]`` fp32.
    """
    grams = [torch.zeros((x.shape[1], x.shape[1]), dtype=torch.float64, device=x.device) for x in (q, k)]
    for gram, x in zip(grams, (q, k), strict=True):
        for block in x.double().split(4096):
            gram.addmm_(block.T, block)
    g_q, g_k = grams
    out: list[float] = []
    for offset in schema.STABILITY_OFFSETS:
        if not frequencies or (window is not None and offset >= window):
            out.append(float("nan"))
            continue
        turned = turn(frequencies, AttentionDefinition(offset=offset))
        eye = torch.eye(len(g_k), dtype=torch.float64, device=q.device)
        assert turned is not None
        turner = turned.keys(eye)
        both = (g_q * (turner.T @ g_k).T).sum()
        size = (g_q * (turner.T @ g_k @ turner).T).sum() * (g_q * g_k.T).sum()
        out.append(float(both / size.sqrt()) if float(size) > 0 else float("nan"))
    return np.array(out, dtype=np.float32)


def _finish(whole: Rows, v: Vectors) -> Rows:
    """Every column of the schema over all rows; those of unusable rows are absent."""
    ids = v.ids.cpu().numpy()
    out: Rows = {}
    for name, column in schema.attention_columns().items():
        out[name] = schema.empty_heads(column, v.n)
        if name in whole:
            out[name][ids] = whole[name]
    return out


def _rows_of(ids: Tensor, wanted: Tensor) -> Tensor:
    return torch.searchsorted(ids, wanted)
