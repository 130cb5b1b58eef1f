"""One feature in all heads of a layer, on demand: its scores with every other feature, both ways.

A query folded back through ``K_eff`` is a direction of the stream, ``S_ij = <q_i, x_j K_eff> = <q_i K_eff^T, x_j>``, so
both sides of all heads are one product of a few directions with the dictionary (speed d.3) instead of a projection of
the dictionary per head. Heads with q/k norms, and bounds, are not linear in the key: there the features are projected.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from wbtui.analysis.attention import Head, RowBlocks, scaled
from wbtui.analysis.attention_tile import Softmax
from wbtui.analysis.rope import turn
from wbtui.analysis.streaming import Stop, poll, top_k
from wbtui.definitions import AttentionDefinition
from wbtui.schema_attention import STABILITY_OFFSETS

TOP = 10
DISTANCES = (0, *STABILITY_OFFSETS)
"""Offsets of a pair's shape over distance."""


@dataclass(frozen=True)
class LoneHead:
    """One feature in one head.

    Attributes:
        values: ``query.rms`` and the like: the columns of :mod:`wbtui.schema_attention` that need no other feature's
            pairs (no gain, no received mass).
        query_partners, key_partners: ``(feature, score, capped score, cosine)``, best first: the keys that the feature
            asks for most, the queries that ask for it most.
        distances: by side, each partner's score at every offset of ``DISTANCES`` that the head can see; empty where
            positions are learned.
    """

    values: dict[str, float]
    query_partners: list[tuple[int, float, float, float]]
    key_partners: list[tuple[int, float, float, float]]
    distances: dict[str, list[list[float]]] = field(default_factory=dict)


def over_distance(head: Head, frequencies: Sequence[float], queries: Tensor, keys: Tensor) -> Tensor:
    """Scores of pairs of rows as the key stands further and further behind the query (methods 3.4).

    Args:
        head: whatever its own offset is, it is put aside.
        frequencies: the head's angles per position; none: learned positions, where features have no such shape.
        queries, keys: ``[n, d_model]`` rows at the definition's scale, pair by pair.

    Returns:
        ``[n, len(DISTANCES)]`` fp32, uncapped and without biases, as scores are stored.
    """
    plain = dataclasses.replace(head, turn=None)
    q, k = plain.queries(queries)[0], plain.keys(keys)[0]
    columns = []
    for offset in DISTANCES:
        turned = turn(list(frequencies), AttentionDefinition(offset=offset))
        columns.append((q * (k if turned is None else turned.keys(k))).sum(1))
    return torch.stack(columns, 1)


def lone_feature(
    heads: Sequence[Head],
    row: Tensor,
    rows: RowBlocks,
    definition: AttentionDefinition,
    device: torch.device,
    *,
    fetch: Callable[[Tensor], Tensor],
    k: int = TOP,
    frequencies: Sequence[float] = (),
    window: int | None = None,
    stop: Stop | None = None,
) -> list[LoneHead] | None:
    """One feature in every head given.

    Args:
        heads: the layer's heads.
        row: ``[d_model]``, the feature's decoder row.
        rows: all decoder rows in blocks.
        fetch: decoder rows by feature number, for the partners' cosines.
        k: partners each way.
        frequencies: the heads' angles per position, for the shape over distance; none leaves it out.
        window: keys that a query can see; offsets beyond are left out. None for all.

    Returns:
        One record a head; None where the row is not finite or zero.

    Raises:
        Cancelled: the stop flag went up.
    """
    x, _, fine = scaled(row[None].to(device), definition, heads[0].centre)
    if not bool(fine[0]):
        return None
    queries = [head.queries(x)[0] for head in heads]
    keys = [head.keys(x)[0] for head in heads]
    scores, priors, good = _scores(heads, queries, keys, rows, definition, device, stop)
    ids = good.nonzero().flatten()
    out = []
    for h, head in enumerate(heads):
        poll(stop)
        as_query, as_key = scores[0, h][ids][None], scores[1, h][ids][None]
        values = _side("query", as_query) | _side("key", as_key)
        values["key.prior"] = float(head.prior(keys[h])[0])
        if not head.bound:
            softmax = Softmax(head.softcap, head.biased and definition.bias, head.sink)
            logits = softmax.logits_(as_query.clone(), head.query_terms(queries[h]), priors[h][ids], False)[0].double()
            mass = logits.softmax(0)
            best = mass.topk(min(5, len(mass))).values * softmax.left_by_sink(logits.logsumexp(0))
            entropy = float(-(mass * mass.clamp_min(1e-300).log()).sum())
            spread = float(torch.tensor(float(len(ids))).log())
            values |= {"query.top1": float(best[0]), "query.top5": float(best.sum())}
            values["query.conc"] = 1 - entropy / spread if len(ids) > 1 else 0.0
        found, distances = [], {}
        for side, mine in ((as_query, queries[h]), (as_key, keys[h])):
            best, index = top_k(side, min(k, len(ids)))
            others = scaled(fetch(ids[index[0]]).to(device), definition, head.centre)[0]
            vectors = (head.keys if side is as_query else head.queries)(others)[0]
            cosines = torch.nn.functional.cosine_similarity(vectors, mine, dim=1)
            if frequencies:
                here = x.expand(len(others), -1)
                pairs = (here, others) if side is as_query else (others, here)
                seen = sum(window is None or offset < window for offset in DISTANCES)
                shape = over_distance(head, frequencies, *pairs)[:, :seen]
                distances["query" if side is as_query else "key"] = shape.tolist()
            capped = best[0] if head.softcap is None else head.softcap * torch.tanh(best[0] / head.softcap)
            found.append(
                [
                    (int(i), float(s), float(c), float(cos))
                    for i, s, c, cos in zip(ids[index[0]], best[0], capped, cosines, strict=True)
                ]
            )
        for side_name, partners in zip(("query", "key"), found, strict=True):
            values[f"{side_name}.partner"], values[f"{side_name}.max_cos"] = partners[0][0], partners[0][3]
        out.append(LoneHead(values, found[0], found[1], distances))
    return out


def _side(name: str, scores: Tensor) -> dict[str, float]:
    x = scores[0].double()
    size = x.abs()
    return {
        f"{name}.rms": float(x.square().mean().sqrt()),
        f"{name}.mean": float(x.mean()),
        f"{name}.mean_abs": float(size.mean()),
        f"{name}.p75": _quartile(size),
        f"{name}.max": float(x.max()),
    }


def _quartile(size: Tensor) -> float:
    rank = 0.75 * (len(size) - 1)
    low = int(rank)
    ordered = size.sort().values
    high = ordered[min(low + 1, len(size) - 1)]
    return float(ordered[low] + (rank - low) * (high - ordered[low]))


def _scores(
    heads: Sequence[Head],
    queries: Sequence[Tensor],
    keys: Sequence[Tensor],
    rows: RowBlocks,
    definition: AttentionDefinition,
    device: torch.device,
    stop: Stop | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores ``[2, H, n]`` (as query, as key), the keys' priors ``[H, n]``, and which rows are usable ``[n]``."""
    linear = all(h.linear for h in heads)
    stack = torch.cat([_directions(h, q, k) for h, q, k in zip(heads, queries, keys, strict=True)]) if linear else None
    parts, goods = [], []
    for block in rows():
        poll(stop)
        x, _, good = scaled(block.to(device), definition, heads[0].centre)
        goods.append(good)
        if stack is not None:
            parts.append((stack @ x.T).view(len(heads), 3, len(x)))
            continue
        found = []
        for head, q, k in zip(heads, queries, keys, strict=True):
            others = head.keys(x)[0]
            found.append(torch.stack([(q @ others.T)[0], (k @ head.queries(x)[0].T)[0], head.prior(others)]))
        parts.append(torch.stack(found))
    whole = torch.cat(parts, dim=2)
    return whole[:, :2].transpose(0, 1), whole[:, 2], torch.cat(goods)


def _directions(head: Head, q: Tensor, k: Tensor) -> Tensor:
    """``[3, d_model]``: the stream directions whose products with features are their scores as keys of ``q``, as
    queries of ``k``, and their priors as keys."""
    constant = head.constant_query
    bias = torch.zeros_like(q) if constant is None else constant.to(q.device)[None]
    onto_keys = torch.cat([q, bias])
    if head.turn is not None:
        onto_keys = head.turn.back(onto_keys)
    return torch.cat([onto_keys[:1] @ head.key.T, head.multiplied(k) @ head.query.T, onto_keys[1:] @ head.key.T])
