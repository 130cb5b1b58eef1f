"""A model of invented SAEs and heads whose truth is planted: what a report must say about it is known beforehand."""

from __future__ import annotations

import numpy as np

from tests.features import make
from wbtui.catalog.models import ModelInfo
from wbtui.catalog.saes import SaeInfo
from wbtui.features.table import FeatureTable
from wbtui.report.data import HeadNull, HeadValues, ModelData, SaeData, mark_extras

STATISTICS = ("rms", "p75", "max", "mean_abs", "gain")
_NULLS = [make.null("isotropic"), make.null("decoder_cov")]
_CHECKS = [make.null("isotropic", 1), make.null("decoder_cov", 1)]


def info(layer: int, n_layers: int, name: str = "", d_sae: int = 120) -> SaeInfo:
    """An SAE at ``resid_post``."""
    return SaeInfo(
        name=name or f"L{layer}", path="nowhere", format="saelens", architecture="topk",
        hook_name=f"blocks.{layer}.hook_resid_post", layer=layer, site="resid_post", d_in=8, d_out=8, d_sae=d_sae,
        reader_layer=layer + 1 if layer + 1 < n_layers else None,
    )  # fmt: skip


def model_info(n_layers: int, model_type: str = "gemma2") -> ModelInfo:
    """A model's sizes."""
    return ModelInfo("made", "nowhere", "folder", model_type, 8, n_layers, 3, 4, 16, 200, True)


def table(seed: int, n: int = 120, name: str = "L0") -> FeatureTable:
    """A third of the rows stand above noise."""
    return FeatureTable.from_arrays(
        make.columns(n, seed=seed), vocab=make.vocabulary(), nulls=_NULLS, checks=_CHECKS, model="made", sae=name
    )


def heads(
    tab: FeatureTable,
    layer: int,
    seed: int,
    *,
    effect: float = 0.0,
    query_level: float = 1.0,
    key_level: float = 1.0,
    n_heads: int = 3,
    lift: float = 0.0,
) -> HeadValues:
    """Log-normal participation; ``effect`` raises the logarithm of features that writes calls semantic."""
    rng = np.random.default_rng(seed)
    semantic = tab.column("semantic.writes")

    def columns(n: int, shift: np.ndarray | float) -> dict[str, np.ndarray]:
        out = {}
        for side, level in (("query", query_level), ("key", key_level)):
            for statistic in STATISTICS:
                out[f"{side}.{statistic}"] = (level * np.exp(0.4 * rng.standard_normal((n_heads, n)) + shift)).astype(
                    "f4"
                )
        out["query.conc"] = rng.random((n_heads, n)).astype("f2")
        out["key.received"] = rng.random((n_heads, n)).astype("f4")
        return out

    nulls = [HeadNull(kind, seed_, columns(400, 0.0)) for seed_ in (0, 1) for kind in ("isotropic", "decoder_cov")]
    return HeadValues(layer, columns(tab.n, effect * semantic + lift), tuple(nulls[:2]), tuple(nulls[2:]), "made")


def model(
    n_layers: int = 6,
    *,
    effect: float = 0.0,
    seed: int = 0,
    key_levels: np.ndarray | None = None,
    query_levels: np.ndarray | None = None,
    model_type: str = "gemma2",
    with_heads: bool = True,
    lift: float = 0.0,
) -> ModelData:
    """SAEs at every layer; the last has no heads that read it."""
    saes = []
    for layer in range(n_layers):
        sae = info(layer, n_layers)
        tab = table(100 * seed + layer, name=sae.name)
        found = SaeData(sae, tab, families=np.arange(tab.n))
        if with_heads and sae.reader_layer is not None:
            found.heads = heads(
                tab, sae.reader_layer, 1000 * seed + layer, effect=effect, lift=lift,
                key_level=1.0 if key_levels is None else float(key_levels[layer]),
                query_level=1.0 if query_levels is None else float(query_levels[layer]),
            )  # fmt: skip
        elif with_heads:
            found.no_heads = "no head reads the last layer"
        saes.append(found)
    data = ModelData(model_info(n_layers, model_type), saes, "folded")
    data.warnings += mark_extras(saes)
    return data
