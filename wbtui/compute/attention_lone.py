"""The head page of one lone feature: its partners in every head of a layer, and what each head writes for it.

Never stored. Tokens and targets of ``o = d V_eff O_eff`` cost H times E1's row, so they are made for one feature at a
time (methods 1.3, "OV").
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wbtui.analysis.attention_lone import DISTANCES, TOP, lone_feature
from wbtui.analysis.attention_pairs import TILE
from wbtui.analysis.output_value import ov_lengths
from wbtui.analysis.streaming import Stop, poll, top_k
from wbtui.analysis.tokens import output_directions, token_rows
from wbtui.catalog.saes import SaeInfo
from wbtui.compute.attention import LayerWork
from wbtui.compute.weights import _RESIDENT, BLOCK, Weights
from wbtui.sources.sae import SaeSource
from wbtui.store.keys import ProductSpec


def head_page(
    request: dict[str, Any],
    feature: int,
    device: str = "cpu",
    *,
    k: int = TOP,
    stop: Stop | None = None,
    progress: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """One feature in all heads of a layer, as plain JSON data.

    Args:
        request: {cache, spec: an ``attention`` product's JSON; optionally tokens: a ``tokens`` product's JSON (top
            tokens of what heads write; its vocabulary must be there), target: an SAE's place as a spec's ``sae`` has
            it (readers and becomes are its features)}.
        feature: its number.
        k: entries of each list.

    Returns:
        dict: {feature, layer, absent: bool, target: name or None, offsets: [Δ…], heads: [{head, values: {column:
        number}, query: [partner…], key: [partner…], ov: {norm, copy, tokens, against, token_z, readers, becomes}}]}; a
        partner is {feature, score, capped, cosine, distance: [score at each offset]}, a token {id, value, z}, a target
        {feature, value}. Lists that were not asked for are absent, ``offsets`` is empty with learned positions; a
        number that is not finite is None.

    Raises:
        Cancelled: ``stop`` said so.
        WeightsError: weights that cannot be read.
    """
    work = LayerWork(ProductSpec.from_json(request["spec"]), device)
    sae, n_heads = work.sae, work.source.facts.n_heads
    row = sae.decoder_rows(feature, feature + 1)[0]

    def fetch(ids: Tensor) -> Tensor:
        return torch.cat([sae.decoder_rows(i, i + 1) for i in ids.tolist()])

    heads = [work.head(h) for h in range(n_heads)]
    window = work.source.facts.window
    angles = work.frequencies
    found = lone_feature(
        heads,
        row,
        work.decoder_rows,
        work.definition,
        work.device,
        fetch=fetch,
        k=k,
        frequencies=angles,
        window=window,
        stop=stop,
    )
    out: dict[str, Any] = {
        "feature": feature,
        "layer": work.source.layer,
        "absent": found is None,
        "target": (request.get("target") or {}).get("name"),
        "offsets": [offset for offset in DISTANCES if angles and (window is None or offset < window)],
        "heads": [],
    }
    if found is None:
        return out
    if progress is not None:
        progress(0.5)
    writers = [work.output_value(h) for h in range(n_heads)]
    written = torch.cat([writer.writes(row[None].to(work.device)) for writer in writers])
    tokens = _tokens(request, written, device, k, stop)
    targets = _targets(request, work, written, k, stop)
    for h, lone in enumerate(found):
        norm, copy, _ = ov_lengths(writers[h], row[None].to(work.device))
        out["heads"].append(
            {
                "head": h,
                "values": {name: _plain(value) for name, value in lone.values.items()},
                "query": _partners(lone.query_partners, lone.distances.get("query")),
                "key": _partners(lone.key_partners, lone.distances.get("key")),
                "ov": {"norm": _plain(float(norm[0])), "copy": _plain(float(copy[0])), **tokens[h], **targets[h]},
            }
        )
    if progress is not None:
        progress(1.0)
    return out


def _tokens(request: dict[str, Any], written: Tensor, device: str, k: int, stop: Stop | None) -> list[dict[str, Any]]:
    """Top and bottom tokens of what each head writes, through the final norm and the unembedding as E1 does it."""
    if request.get("tokens") is None:
        return [{} for _ in written]
    weights = Weights(Path(request["cache"]), ProductSpec.from_json(request["tokens"]), device)
    side, _ = weights.tables(lazy=True)
    directions, lengths = output_directions(
        written, weights.norm["gain"], weights.norm["centre"], weights.definition.unembed
    )
    rows = token_rows(directions, side, lengths=lengths, want="both", tile=TILE, stop=stop)

    def listed(h: int, which: str) -> list[dict[str, Any]]:
        mean, std = float(rows["mean"][h]), float(rows["std"][h])
        pairs = zip(rows[f"{which}_ids"][h, :k], rows[f"{which}_values"][h, :k], strict=True)
        return [
            {"id": int(i), "value": _plain(float(v)), "z": _plain((float(v) - mean) / std) if std > 0 else None}
            for i, v in pairs
            if i >= 0
        ]

    return [
        {"tokens": listed(h, "top"), "against": listed(h, "bottom"), "token_z": _plain(float(rows["z_max"][h]))}
        for h in range(len(written))
    ]


def _targets(
    request: dict[str, Any], work: LayerWork, written: Tensor, k: int, stop: Stop | None
) -> list[dict[str, Any]]:
    """Downstream features by ``<o, e_j>`` (readers) and by cosine with ``d_j`` (becomes): two different lists."""
    if request.get("target") is None:
        return [{} for _ in written]
    info = SaeInfo(**request["target"])
    key = ("attention target", info.path, work.spec.model["path"], work.spec.identity["model"])
    sae: SaeSource = _RESIDENT.get(key, lambda: SaeSource(info, work.checkpoint), lambda _: 0)
    centre = work.source.centre
    o = written - written.mean(1, keepdim=True) if centre else written
    unit = torch.nn.functional.normalize(o, dim=1)
    reads, becomes = [], []
    for start in range(0, sae.n, BLOCK):
        poll(stop)
        end = min(sae.n, start + BLOCK)
        d, e = sae.decoder_rows(start, end).to(work.device), sae.encoder_rows(start, end)
        d = d - d.mean(1, keepdim=True) if centre else d
        becomes.append(unit @ torch.nn.functional.normalize(d, dim=1).T)
        if e is not None:
            reads.append(written @ e.to(work.device).T)
    out: list[dict[str, Any]] = [{"becomes": _best(becomes, h, k)} for h in range(len(written))]
    if reads:
        for h, lists in enumerate(out):
            lists["readers"] = _best(reads, h, k)
    return out


def _best(blocks: list[Tensor], h: int, k: int) -> list[dict[str, Any]]:
    row = torch.cat([block[h] for block in blocks])[None]
    row = torch.where(torch.isfinite(row), row, -math.inf)
    values, ids = top_k(row, k)
    pairs = zip(ids[0].tolist(), values[0].tolist(), strict=True)
    return [{"feature": i, "value": v} for i, v in pairs if math.isfinite(v)]


def _partners(
    partners: list[tuple[int, float, float, float]], distances: list[list[float]] | None
) -> list[dict[str, Any]]:
    return [
        {
            "feature": feature,
            "score": _plain(score),
            "capped": _plain(capped),
            "cosine": _plain(cosine),
            "distance": [] if distances is None else [_plain(value) for value in distances[at]],
        }
        for at, (feature, score, capped, cosine) in enumerate(partners)
    ]


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
