"""Heads as plain JSON data: a block of a feature's record, a block of an SAE's summary."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from wbtui.definitions import to_json
from wbtui.errors import WbtuiError
from wbtui.features.heads import HeadTable, Part, Share, largest
from wbtui.features.summary import share as with_interval
from wbtui.schema_attention import HEAD_SIDES

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable

LISTED = 8


def heads_or_reason(table: FeatureTable) -> HeadTable | str:
    """The reader layer's heads if they are computed, else why there is nothing to say."""
    shelf = table.heads
    if shelf is None:
        return "no model at hand"
    if shelf.absent:
        return shelf.absent
    try:
        heads = shelf.table()
    except (WbtuiError, OSError) as error:
        return error.line() if isinstance(error, WbtuiError) else str(error)
    return heads if heads.ready else f"heads of L{heads.layer} are not computed"


def add_to(out: dict[str, Any], table: FeatureTable, row: int | None = None) -> None:
    """Put ``heads`` into a record (of a row) or a summary; null, with ``heads_absent`` saying why, without them."""
    found = heads_or_reason(table)
    if isinstance(found, str):
        out["heads"], out["heads_absent"] = None, found
    else:
        out["heads"] = summary(found, table) if row is None else record(found, table, row)


def _about(heads: HeadTable) -> dict[str, Any]:
    plan = heads.plan
    return {
        "layer": heads.layer,
        "n_heads": heads.n_heads,
        "statistic": heads.statistic,
        "ratio_to": "99th percentile of random directions in the same head, the larger over null kinds",
        "nulls": [{"kind": null.kind, "seed": null.seed, "n": null.n} for null in heads.nulls],
        "estimated": heads.estimated(heads.statistic),
        "normalised": plan.normalised if plan is not None else None,
        "caveats": list(plan.facts.words) if plan is not None else None,
        "definition": to_json(heads.definition),
    }


def record(heads: HeadTable, table: FeatureTable, row: int) -> dict[str, Any]:
    """One feature: its strongest heads per side with ratio, raw score, partner and the partner's words."""
    here = heads.row(row)
    rms = heads.row(row, "rms")
    out = _about(heads)
    for side in HEAD_SIDES:
        found = np.fmax.reduce(here.ratio[side]) if heads.n_heads else math.nan
        out[side] = {
            "strongest": [
                {
                    "head": part.head,
                    "ratio": _plain(part.ratio),
                    "beyond_noise": part.beyond,
                    "score": _plain(part.value),
                    "rms_ratio": _plain(float(rms.ratio[side][part.head])),
                    "percentile": _plain(heads.percentile(side, part.head, row)),
                    "partner": part.partner if part.partner >= 0 else None,
                    "partner_words": words_of(table, part.partner),
                }
                for part in here.strongest(LISTED, side)
            ],
            "some_head": {"ratio": _plain(float(found)), "bar": _plain(heads.any_bar(side))},
        }
    return out


def summary(heads: HeadTable, table: FeatureTable) -> dict[str, Any]:
    """All features: shares of (feature, head) pairs beyond noise, of features in some head, the strongest pairs."""
    out = _about(heads)
    for side in HEAD_SIDES:
        out[side] = {
            "pairs": share_json(heads.pairs(side)),
            "some_head": share_json(heads.any_head(side)),
            "per_head": [share_json(heads.pairs(side, head=h)) for h in range(heads.n_heads)],
            "strongest": [
                {
                    "feature": feature, "head": part.head, "ratio": _plain(part.ratio), "score": _plain(part.value),
                    "words": words_of(table, feature), "partner": part.partner if part.partner >= 0 else None,
                    "partner_words": words_of(table, part.partner),
                }
                for feature, part in strongest_pairs(heads, side, LISTED)
            ],
        }  # fmt: skip
    return out


def strongest_pairs(heads: HeadTable, side: str, k: int) -> list[tuple[int, Part]]:
    """The largest ratios over all features and heads: (feature, part), ties by head, then feature."""
    ratios = heads.ratios(side)
    values, partners = heads.column(f"{side}.{heads.statistic}"), heads.column(f"{side}.partner")
    return [
        (i % heads.n, Part(h := i // heads.n, side, float(ratios[h, i % heads.n]), float(values[h, i % heads.n]),
                           int(partners[h, i % heads.n])))
        for i in largest(ratios.ravel(), k).tolist()
    ]  # fmt: skip


def share_json(share: Share) -> dict[str, Any]:
    """A share with its interval, the noise's own and the line."""
    return {
        **with_interval(share.count, share.n),
        "null_share": _plain(share.null),
        "null_is_fresh": share.fresh,
        "bar": _plain(share.bar),
    }


def words_of(table: FeatureTable, feature: int, k: int = 4) -> list[str]:
    """The best words that a feature writes, safe to print; empty where it is not computed."""
    if not 0 <= feature < table.n or not table.available[feature]:
        return []
    return [word.text for word in table.words(feature, "writes", k)]


def _plain(value: float) -> float | None:
    return float(np.float32(value)) if math.isfinite(value) else None
