"""Nearest features from files to stored columns, filters and records, on tiny models of both kinds of norm."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.compute.test_attention_path import columns_of, fill
from tests.fixtures.models import tiny_model
from tests.fixtures.saes import tiny_sae
from wbtui.catalog.models import find_model
from wbtui.catalog.plan import plan_tokens
from wbtui.catalog.plan_neighbours import NeighboursPlan, plan_neighbours
from wbtui.catalog.saes import beside, find_sae, list_saes
from wbtui.definitions import NeighboursDefinition, TokensDefinition, neighbours_from_json
from wbtui.errors import UsageError
from wbtui.features.query import parse
from wbtui.features.table import FeatureTable
from wbtui.service.planning import products_of


def unit(x: np.ndarray, centre: bool) -> np.ndarray:
    x = x.astype(np.float64)
    x = x - x.mean(1, keepdims=True) if centre else x
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def rows_of(folder: Path, kind: str) -> np.ndarray:
    weights = load_file(folder / "sae_weights.safetensors")
    return weights["W_dec"] if kind == "dec" else weights["W_enc"].T


def plan_of(model: Path, sae: str, cache: Path, other: str | None = None) -> NeighboursPlan:
    info = find_model(str(model))
    return plan_neighbours(info, find_sae(info, sae), NeighboursDefinition(), cache, other)


@pytest.mark.parametrize("kind", ["gpt2", "gemma2"])
def test_against_float64(tmp_path: Path, kind: str):
    model = tiny_model(tmp_path / "model", kind)
    folders = {
        f"L{layer}": tiny_sae(model / "saes", model, layer=layer, d_sae=n, seed=layer)
        for layer, n in ((0, 30), (1, 40), (2, 50))
    }
    cache = tmp_path / "cache"
    plan = plan_of(model, "L1", cache)
    assert [(p.role, p.other.name) for p in plan.pairs] == [("same", "L1"), ("before", "L0"), ("after", "L2")]
    fill(cache, plan.all())
    centre = kind == "gpt2"
    for pair in plan.pairs:
        found = columns_of(cache, pair.product)
        for side in ("dec", "enc"):
            cosines = (
                unit(rows_of(folders["L1"], side), centre) @ unit(rows_of(folders[pair.other.name], side), centre).T
            )
            if pair.role == "same":
                np.fill_diagonal(cosines, -np.inf)
            order = np.argsort(-cosines, axis=1, kind="stable")[:, :5]
            np.testing.assert_array_equal(found[f"{side}.id"], order)
            np.testing.assert_allclose(found[f"{side}.cos"], np.take_along_axis(cosines, order, 1), atol=2e-6)
        for spec in pair.nulls:
            best = columns_of(cache, spec)
            assert best["dec.best"].shape == (2000,) and np.isfinite(best["enc.best"]).all()
            assert (best["dec.best"] > 0).mean() > 0.99 and (best["dec.best"] <= 1).all()

    info = find_model(str(model))
    table = FeatureTable.open(cache, plan_tokens(info, find_sae(info, "L1"), TokensDefinition(), cache))
    here = columns_of(cache, plan.pairs[0].product)
    np.testing.assert_array_equal(table.column("nn"), here["dec.cos"][:, 0])
    np.testing.assert_array_equal(table.column("nn_id.prev"), columns_of(cache, plan.pairs[1].product)["dec.id"][:, 0])
    np.testing.assert_array_equal(
        table.column("nn.next.enc"), columns_of(cache, plan.pairs[2].product)["enc.cos"][:, 0]
    )
    cut = float(np.median(here["dec.cos"][:, 0]))
    np.testing.assert_array_equal(parse(f"nn>{cut}").mask(table), here["dec.cos"][:, 0] > np.float32(cut))
    tail, words = table.null_percentile("nn", 3)
    noise = [columns_of(cache, spec)["dec.best"] for spec in plan.pairs[0].nulls]
    assert tail == pytest.approx(max((1 + (b >= here["dec.cos"][3, 0]).sum()) / 2001 for b in noise))
    assert "of noise" in words or "directions" in words
    assert table.column("null:nn")[3] == pytest.approx(tail)
    record = table.record(3)
    json.dumps(record, allow_nan=False)
    first = next(p for p in record["neighbours"] if p["role"] == "same")["decoder"]["nearest"][0]
    assert first["feature"] == here["dec.id"][3, 0] and first["address"].endswith(f"@L1#{first['feature']}")
    bar = table.neighbours.bar("nn")
    assert bar == pytest.approx(max(np.percentile(b, 99) for b in noise))


def test_rows_without_direction_and_encoders_off_the_stream(tmp_path: Path):
    model = tiny_model(tmp_path / "model", "gemma2")
    tiny_sae(model / "saes", model, layer=1, zero_rows=[3], nan_rows=[5])
    tiny_sae(model / "saes", model, layer=1, site="mlp_out", seed=4)
    cache = tmp_path / "cache"
    plan = plan_of(model, "L1", cache, "all")
    assert [(p.role, p.other.name) for p in plan.pairs] == [("same", "L1"), ("", "L1-mlp_out")]
    fill(cache, plan.all())
    same, other = (columns_of(cache, p.product) for p in plan.pairs)
    assert (same["dec.id"][[3, 5]] == -1).all() and np.isnan(same["dec.cos"][[3, 5]]).all()
    assert not np.isin(same["dec.id"], [3, 5]).any(), "what has no direction is nobody's neighbour"
    assert (same["enc.id"][[3, 5]] >= 0).all(), "the encoder columns of those are whole"
    assert (other["enc.id"] == -1).all() and np.isnan(other["enc.cos"]).all(), "that encoder does not read the stream"
    assert (np.delete(other["dec.id"], [3, 5], 0) >= 0).all()
    record = FeatureTable.open(cache, plan_tokens(plan.model, plan.sae, TokensDefinition(), cache)).record(3)
    assert record["neighbours"][0]["decoder"]["nearest"] == []


def test_stream_positions(tmp_path: Path):
    model = tiny_model(tmp_path / "model", "gemma2")
    for layer, site in ((0, "resid_post"), (1, "resid_pre"), (1, "resid_mid"), (2, "resid_post"), (1, "mlp_out")):
        tiny_sae(model / "saes", model, layer=layer, site=site)
    info = find_model(str(model))
    saes = {s.name: s for s in list_saes(info)}
    names = {
        name: [None if s is None else s.name for s in beside(list(saes.values()), sae)] for name, sae in saes.items()
    }
    assert names["L0"] == [None, "L1-resid_mid"], "resid_pre 1 is the same place as resid_post 0"
    assert names["L1-resid_pre"] == [None, "L1-resid_mid"]
    assert names["L1-resid_mid"][1] == "L2"
    assert names["L2"] == ["L1-resid_mid", None]
    assert names["L1-mlp_out"] == [None, None], "other sites go with their own"


def test_keys(tmp_path: Path):
    model = tiny_model(tmp_path / "model", "gemma2")
    for layer in (0, 1):
        tiny_sae(model / "saes", model, layer=layer, seed=layer)
    cache = tmp_path / "cache"
    one, again = plan_of(model, "L0", cache), plan_of(model, "L0", cache, "L1")
    assert again.pairs[0].product.key == one.pairs[1].product.key
    assert len({spec.key for spec in one.all()}) == len(one.all())
    back = plan_of(model, "L1", cache, "L0")
    assert back.pairs[0].product.key != again.pairs[0].product.key, "a comparison has a direction"
    request = {"model": str(model), "sae": "L0", "definition": {"k": 5}, "cache": str(cache), "analysis": "neighbours"}
    assert [s.key for s in products_of(request)] == [s.key for s in one.all()]
    with pytest.raises(UsageError, match="no SAE 'seed9'"):
        plan_of(model, "L0", cache, "seed9")
    with pytest.raises(UsageError, match="k 0"):
        neighbours_from_json({"k": 0})
    with pytest.raises(UsageError, match="fields"):
        neighbours_from_json({"kk": 1})
