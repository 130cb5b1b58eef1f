"""Which SAE's features say what a layer's heads write."""

from __future__ import annotations

import dataclasses

from wbtui.catalog.models import find_model
from wbtui.catalog.plan_attention import target_of
from wbtui.catalog.saes import SaeInfo, reader_layer

MODEL = dataclasses.replace(find_model("demo"), n_layers=6)


def sae(name: str, layer: int, site: str = "resid_post", d_sae: int = 64) -> SaeInfo:
    return SaeInfo(
        name, name, "saelens", "standard", "", layer, site, 8, 8, d_sae, reader_layer=reader_layer(site, layer, 6)
    )


def test_the_nearest_stream_behind_the_heads() -> None:
    own = sae("L2", 2)
    saes = [sae("L1", 1), own, sae("L3", 3), sae("L4", 4), sae("L5", 5), sae("L3-mlp", 3, "mlp_out")]
    assert target_of(MODEL, saes, own, 3) == saes[2]  # heads of layer 3 read L2 and write into L3's stream
    assert target_of(MODEL, saes, own, 4) == saes[3]
    assert target_of(MODEL, saes, own, 5) == saes[4]  # nothing reads it but the unembedding, yet it stands there
    assert target_of(MODEL, [own], own, 3) is None
    assert target_of(MODEL, [saes[5]], own, 3) is None  # not the stream
    before, after = sae("pre3", 3, "resid_pre"), sae("pre4", 4, "resid_pre")
    assert target_of(MODEL, [before, after], own, 3) == after


def test_of_several_at_one_place_the_likest() -> None:
    own = sae("L2", 2)
    saes = [sae("L3-wide", 3, d_sae=512), sae("L3-b", 3), sae("L3", 3, d_sae=512), sae("mid", 3, "resid_mid")]
    assert target_of(MODEL, saes, own, 3) == saes[2]
    assert target_of(MODEL, [saes[0], saes[1]], own, 3) == saes[1]
    assert target_of(MODEL, [saes[3], saes[0]], own, 3) == saes[0]
