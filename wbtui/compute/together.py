"""Some features side by side, of one SAE or of several of the model: cosines of decoder rows in the stream, effective
rank, the same of random directions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wbtui.analysis import nulls
from wbtui.analysis.neighbours import unit_rows
from wbtui.catalog.saes import SaeInfo
from wbtui.compute.ask import Question
from wbtui.errors import UsageError

MOST = 200
LEAST_RANDOM = 96
BLOCK = 4096
KINDS = ("isotropic", "decoder_cov")


def effective_rank(rows: Tensor) -> float:
    """``exp(H(s / sum s))`` of the singular values ``s`` of unit rows (methods 2.6): 1 for copies of one direction, as
    many as there are for orthogonal ones."""
    values = torch.linalg.svdvals(rows.double())
    share = values[values > 1e-12] / values.sum()
    return float(torch.exp(-(share * share.log()).sum())) if len(share) else 0.0


def together(question: Question) -> dict[str, Any]:
    """Answer ``set``: args {rows: of the anchor} or {members: [[sae, feature], …]}.

    Returns:
        dict: {features, saes: of those with a direction, absent, absent_saes: of those without, cosines [[…]] in the
        order asked for, rank, null: {kind: {pair_p99: 99th percentile of the absolute cosine of two random directions,
        rank: median effective rank of as many of them, n}}}. A random set has as many directions for each SAE as the
        set has features of it, with that SAE's covariance.

    Raises:
        UsageError: no features, too many, or none of the model's.
    """
    members = _members(question)
    order: dict[str, list[int]] = {}
    for at, (name, _) in enumerate(members):
        order.setdefault(name, []).append(at)
    saes = {name: question.named(name) for name in order}
    for name, feature in members:
        if not 0 <= feature < saes[name].d_sae:
            raise UsageError(
                f"feature {feature} of {name}", f"0 to {saes[name].d_sae - 1}", "take features that the SAE has"
            )
    rows = torch.empty((len(members), question.weights.checkpoint.dims.d_model), device=question.device)
    for name, places in order.items():
        rows[places] = question.rows(saes[name], [members[at][1] for at in places]).to(rows)
    rows, gone = unit_rows(rows, centre=question.centre)
    absent = gone.tolist()
    kept = [member for member, bad in zip(members, absent, strict=True) if not bad]
    left = [member for member, bad in zip(members, absent, strict=True) if bad]
    rows = rows[~gone]
    cosines = (rows @ rows.T).clamp(-1.0, 1.0)
    answer: dict[str, Any] = {
        "features": [feature for _, feature in kept],
        "saes": [name for name, _ in kept],
        "absent": [feature for _, feature in left],
        "absent_saes": [name for name, _ in left],
        "cosines": [[round(float(c), 4) for c in line] for line in cosines.cpu()],
        "rank": effective_rank(rows) if len(rows) else None,
        "null": {},
    }
    question.tell(0.3)
    if len(rows) > 1:
        counts = {name: sum(of == name for of, _ in kept) for name in order}
        for kind, random in _random(question, [(saes[name], n) for name, n in counts.items() if n]).items():
            answer["null"][kind] = _null(random, len(rows))
    return answer


def _members(question: Question) -> list[tuple[str, int]]:
    """The features asked for, by SAE.

    Raises:
        UsageError: none, too many, or not numbers.
    """
    anchor, wanted = question.anchor, question.args.get("members")
    if wanted is None:
        rows = question.args.get("rows")
        wanted = [[anchor.name, row] for row in rows] if isinstance(rows, list) else rows
    fine = isinstance(wanted, list) and all(
        isinstance(m, list) and len(m) == 2 and isinstance(m[0], str) and type(m[1]) is int for m in wanted
    )
    if not fine or not wanted:
        raise UsageError(
            f"features {str(wanted)[:60]}", f"numbers from 0 to {anchor.d_sae - 1}", "mark two features or more"
        )
    if len(wanted) > MOST:
        raise UsageError(f"{len(wanted)} features", f"at most {MOST} side by side", "mark fewer")
    return [(name, feature) for name, feature in wanted]


def _random(question: Question, parts: list[tuple[SaeInfo, int]]) -> dict[str, Tensor]:
    """Sets of random unit directions of each kind, one after another: at least :data:`LEAST_RANDOM` rows."""
    n = sum(count for _, count in parts)
    sets = max(4, -(-LEAST_RANDOM // n))
    own = [_drawn(question, sae, count * sets, at).view(sets, count, -1) for at, (sae, count) in enumerate(parts)]
    drawn = torch.cat(own, dim=1)
    isotropic = nulls.directions("isotropic", n * sets, 0, d_model=drawn.shape[2]).to(question.device)
    found = {"isotropic": isotropic, "decoder_cov": drawn.flatten(0, 1)}
    return {kind: unit_rows(found[kind], centre=question.centre)[0] for kind in KINDS}


def _drawn(question: Question, sae: SaeInfo, count: int, seed: int) -> Tensor:
    """Directions ``[count, D]`` with the covariance of an SAE's unit decoder rows."""
    source = question.source(sae)
    total: Tensor | None = None
    draw = torch.Generator().manual_seed(seed)
    for start in range(0, source.n, BLOCK):
        question.poll()
        block = source.decoder_rows(start, min(source.n, start + BLOCK)).to(question.device)
        units, _ = unit_rows(block, centre=question.centre)
        z = torch.randn((count, len(units)), generator=draw).to(question.device)
        total = z @ units if total is None else total.addmm_(z, units)
    assert total is not None
    return total


def _null(random: Tensor, n: int) -> dict[str, Any]:
    pairs = (random @ random.T).abs()
    upper = pairs[torch.triu(torch.ones_like(pairs, dtype=torch.bool), 1)]
    ranks = sorted(effective_rank(part) for part in random.split(n))
    return {
        "pair_p99": float(torch.quantile(upper[:1_000_000], 0.99)),
        "rank": ranks[len(ranks) // 2],
        "n": len(random),
    }
