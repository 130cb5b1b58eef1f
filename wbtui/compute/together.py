"""Some features of one SAE side by side: cosines of decoder rows, effective rank, the same of random directions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wbtui.analysis import nulls
from wbtui.analysis.neighbours import unit_rows
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
    """Answer ``set``: args {rows}.

    Returns:
        dict: {features, absent: those without a direction, cosines [[…]] of the others in the order asked for, rank,
        null: {kind: {pair_p99: 99th percentile of the absolute cosine of two random directions, rank: median effective
        rank of as many of them, n}}}.

    Raises:
        UsageError: no rows, too many, or not the SAE's.
    """
    sae = question.anchor
    wanted = question.args.get("rows")
    if not isinstance(wanted, list) or not wanted or not all(isinstance(r, int) and 0 <= r < sae.d_sae for r in wanted):
        raise UsageError(f"features {str(wanted)[:60]}", f"numbers from 0 to {sae.d_sae - 1}")
    if len(wanted) > MOST:
        raise UsageError(f"{len(wanted)} features", f"at most {MOST} side by side")
    rows, gone = unit_rows(question.rows(sae, wanted).to(question.device), centre=question.centre)
    kept = [f for f, bad in zip(wanted, gone.tolist(), strict=True) if not bad]
    rows = rows[~gone]
    cosines = (rows @ rows.T).clamp(-1.0, 1.0)
    answer: dict[str, Any] = {
        "features": kept,
        "absent": [f for f, bad in zip(wanted, gone.tolist(), strict=True) if bad],
        "cosines": [[round(float(c), 4) for c in line] for line in cosines.cpu()],
        "rank": effective_rank(rows) if len(rows) else None,
        "null": {},
    }
    question.tell(0.3)
    if len(rows) > 1:
        for kind, random in _random(question, len(rows)).items():
            answer["null"][kind] = _null(random, len(rows))
    return answer


def _random(question: Question, n: int) -> dict[str, Tensor]:
    """Sets of ``n`` random unit directions of each kind, one after another: at least :data:`LEAST_RANDOM` rows."""
    source = question.source(question.anchor)
    count = n * max(4, -(-LEAST_RANDOM // n))
    total: Tensor | None = None
    draw = torch.Generator().manual_seed(0)
    for start in range(0, source.n, BLOCK):
        question.poll()
        block = source.decoder_rows(start, min(source.n, start + BLOCK)).to(question.device)
        units, _ = unit_rows(block, centre=question.centre)
        z = torch.randn((count, len(units)), generator=draw).to(question.device)
        total = z @ units if total is None else total.addmm_(z, units)
    assert total is not None
    isotropic = nulls.directions("isotropic", count, 0, d_model=total.shape[1]).to(question.device)
    found = {"isotropic": isotropic, "decoder_cov": total}
    return {kind: unit_rows(found[kind], centre=question.centre)[0] for kind in KINDS}


def _null(random: Tensor, n: int) -> dict[str, Any]:
    pairs = (random @ random.T).abs()
    upper = pairs[torch.triu(torch.ones_like(pairs, dtype=torch.bool), 1)]
    ranks = sorted(effective_rank(part) for part in random.split(n))
    return {
        "pair_p99": float(torch.quantile(upper[:1_000_000], 0.99)),
        "rank": ranks[len(ranks) // 2],
        "n": len(random),
    }
