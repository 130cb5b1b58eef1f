"""Does the next token fall in a feature's word list? The only part of the demo that looks at text.

For each feature that fires often enough: take its strongest quarter of firings and count how often the true next
token is among the ten tokens that the weights name. Lift is that share over the base frequency of these tokens.
The control asks the same with the list of another feature of the same SAE.
"""

from __future__ import annotations

import numpy as np
import torch

MIN_FIRINGS = 30
MIN_TAKEN = 15
FLOOR = 0.001  # added to both shares, so that rare tokens cannot give huge ratios
NOTE = (
    "These figures use text: 2 % of the demo's corpus that neither the model nor the SAEs were trained on. For each "
    "feature: the share of its strongest quarter of firings where the true next token is one of the ten tokens that "
    "the weights alone name, divided by how frequent those tokens are anyway (0.001 added to both). A lift of 1 "
    "means no prediction. The control uses the ten tokens of another feature. Features that fire fewer than 30 times "
    "on this text have no figure (null). Everything else that the app shows comes from weights alone."
)


def lifts(fires: np.ndarray, following: torch.Tensor, lists: np.ndarray, vocabulary: int, seed: int = 0) -> dict:
    """Lift of every feature and of the control, with summaries."""
    following_np = following.numpy()
    base = np.bincount(following_np, minlength=vocabulary) / len(following_np)
    rng = np.random.default_rng(seed)
    count = fires.shape[1]
    # A shifted random order: everybody gets the list of another feature, nobody its own.
    order = rng.permutation(count)
    other = np.empty(count, dtype=int)
    other[order] = np.roll(order, 1)
    real: list[float | None] = []
    control: list[float] = []
    hits: list[float | None] = []
    for feature in range(count):
        strength = fires[:, feature]
        where = np.flatnonzero(strength > 0)
        if len(where) < MIN_FIRINGS:
            real.append(None)
            hits.append(None)
            continue
        take = max(MIN_TAKEN, len(where) // 4)
        strongest = where[np.argsort(-strength[where], kind="stable")[:take]]
        nexts = following_np[strongest]
        values = []
        for names in (lists[feature], lists[other[feature]]):
            hit = float(np.isin(nexts, names).mean())
            values.append((hit, (hit + FLOOR) / (float(base[names].sum()) + FLOOR)))
        real.append(round(values[0][1], 1))
        hits.append(round(values[0][0], 3))
        control.append(values[1][1])
    known = np.array([v for v in real if v is not None])
    known_hits = np.array([v for v in hits if v is not None])
    against = np.array(control)
    return {
        "features": len(known),
        "median_lift": round(float(np.median(known)), 2),
        "share_above_3": round(float((known > 3).mean()), 4),
        "median_hit_rate": round(float(np.median(known_hits)), 4),
        "control_median_lift": round(float(np.median(against)), 2),
        "control_share_above_3": round(float((against > 3).mean()), 4),
        "lift": real,
        "hit_rate": hits,
    }
