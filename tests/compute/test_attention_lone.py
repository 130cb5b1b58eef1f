"""The head page of one feature: its numbers are its stored row's, its lists those of dense float64 products."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.compute.test_attention_path import Truth, columns_of, fill, make_plan
from tests.compute.test_whole_path import fill as fill_tokens
from tests.compute.test_whole_path import make_plan as make_tokens_plan
from tests.fixtures.models import tiny_model
from tests.fixtures.saes import tiny_sae
from wbtui import schema_attention as schema
from wbtui.compute.attention_lone import head_page
from wbtui.definitions import DEFINITIONS, AttentionDefinition

FEATURE = 7
STORED_ONLY = {"query.gain", "key.gain", "key.received"}


def page(tmp_path: Path, model_type: str, definition: AttentionDefinition) -> tuple[dict[str, Any], Any, Any, Any]:
    model = tiny_model(tmp_path, model_type, seed=3)
    sae, cache = tiny_sae(tmp_path, model, d_sae=60, zero_rows=[3], nan_rows=[50]), tmp_path / "cache"
    plan = make_plan(model, sae, cache, definition)
    fill(cache, [plan.attention, plan.ov])
    request = {"cache": str(cache), "spec": plan.attention.to_json(), "target": dataclasses.asdict(plan.sae)}
    tokens = make_tokens_plan(model, sae, cache, DEFINITIONS["folded"])
    fill_tokens(cache, [tokens.vocab])
    request["tokens"] = tokens.tokens.to_json()
    return head_page(request, FEATURE, k=6), plan, (model, sae, cache), request


@pytest.mark.parametrize(
    ("model_type", "definition"),
    [
        ("gpt2", AttentionDefinition()),
        ("gpt_neox", AttentionDefinition(offset=5)),
        ("qwen2", AttentionDefinition(rope="mean", offsets=7)),
        ("gemma2", AttentionDefinition()),
        ("llama", AttentionDefinition(rope="bound")),
        ("gpt_oss", AttentionDefinition()),
        ("olmo2", AttentionDefinition(offset=5)),
        ("phi", AttentionDefinition(offset=5)),
    ],
)
def test_a_lone_feature_is_its_stored_row(tmp_path: Path, model_type: str, definition: AttentionDefinition) -> None:
    found, plan, (model, sae, cache), _ = page(tmp_path, model_type, definition)
    stored, ov = columns_of(cache, plan.attention), columns_of(cache, plan.ov)
    truth = Truth(model, plan.layer)
    weights = load_file(sae / "sae_weights.safetensors")
    assert (found["feature"], found["layer"], found["absent"], len(found["heads"])) == (FEATURE, 2, False, truth.heads)
    rows = np.nan_to_num(weights["W_dec"].astype(float))
    rows[3] = 1.0
    for h, head in enumerate(found["heads"]):
        absent = {n for n in schema.attention_columns() if np.isnan(stored[n][h][FEATURE])}
        assert set(head["values"]) == set(schema.attention_columns()) - STORED_ONLY - absent - {
            "query.cos_rms",
            "key.cos_rms",
        }
        for name, value in head["values"].items():
            assert value == pytest.approx(float(stored[name][h][FEATURE]), rel=1e-3, abs=1e-4), (name, h)
        for side in schema.HEAD_SIDES:
            scores = [p["score"] for p in head[side]]
            assert scores == sorted(scores, reverse=True) and len(scores) == 6
            assert not {3, 50} & {p["feature"] for p in head[side]}
            assert head[side][0]["feature"] == stored[f"{side}.partner"][h][FEATURE]
            for p in head[side]:
                cap = truth.softcap
                assert p["capped"] == pytest.approx(cap * np.tanh(p["score"] / cap) if cap else p["score"], rel=1e-5)
        assert head["ov"]["norm"] == pytest.approx(float(ov["ov.norm"][h][FEATURE]), rel=1e-4)
        assert head["ov"]["copy"] == pytest.approx(float(ov["ov.copy"][h][FEATURE]), abs=1e-4)


@pytest.mark.parametrize("model_type", ["gpt2", "gemma2"])
def test_lists_are_those_of_dense_products(tmp_path: Path, model_type: str) -> None:
    found, plan, (model, sae, _), _ = page(tmp_path, model_type, AttentionDefinition())
    truth = Truth(model, plan.layer)
    weights = load_file(sae / "sae_weights.safetensors")
    d = weights["W_dec"].astype(float)
    good = np.setdiff1d(np.arange(60), [3, 50])
    centred = (d - d.mean(1, keepdims=True)) if truth.centre else d
    x = centred[good] / np.linalg.norm(centred[good], axis=1, keepdims=True) * 32**0.5
    mine = int(np.flatnonzero(good == FEATURE)[0])
    import transformers

    reference = transformers.AutoModelForCausalLM.from_pretrained(model).double().eval()
    norm = reference.base_model.ln_f if model_type == "gpt2" else reference.base_model.norm
    gain = norm.weight.detach().numpy() + (0 if model_type == "gpt2" else 1)
    unembed = reference.get_output_embeddings().weight.detach().numpy()
    encoder = weights["W_enc"].T.astype(float)
    encoder = encoder - encoder.mean(1, keepdims=True) if truth.centre else encoder
    for h, head in enumerate(found["heads"]):
        t = truth.scores(h, x, x)
        for side, row, cosines in (
            ("query", t["scores"][mine], t["cosines"][mine]),
            ("key", t["scores"][:, mine], t["cosines"][:, mine]),
        ):
            order = np.argsort(-row)[:6]
            assert [p["feature"] for p in head[side]] == good[order].tolist()
            np.testing.assert_allclose([p["score"] for p in head[side]], row[order], rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose([p["cosine"] for p in head[side]], cosines[order], atol=1e-4)
        o = truth.written(truth.parts(x[mine : mine + 1])[0][2][:, h] / 32**0.5, h)[0]
        seen = o - o.mean() if truth.centre else o
        logits = unembed[:387] @ (seen * gain)
        listed = [p["id"] for p in head["ov"]["tokens"]]
        kept = np.argsort(-logits)  # 387 tokens, then padding; the first three are special
        assert listed == [i for i in kept if i >= 3][:6]
        readers = encoder @ o
        assert [p["feature"] for p in head["ov"]["readers"]] == np.argsort(-readers)[:6].tolist()
        becomes = (centred[good] @ seen) / np.linalg.norm(centred[good], axis=1) / np.linalg.norm(seen)
        assert [p["feature"] for p in head["ov"]["becomes"]] == good[np.argsort(-becomes)[:6]].tolist()
        np.testing.assert_allclose([p["value"] for p in head["ov"]["becomes"]], np.sort(becomes)[::-1][:6], atol=1e-4)


def test_absent_rows_and_lists_that_were_not_asked_for(tmp_path: Path) -> None:
    found, _, _, request = page(tmp_path, "llama", AttentionDefinition())
    assert {"tokens", "readers"} <= set(found["heads"][0]["ov"])
    for bad in (3, 50):
        assert head_page(request, bad) == {**found, "feature": bad, "absent": True, "heads": []}
    bare = head_page({"cache": request["cache"], "spec": request["spec"]}, FEATURE)
    assert set(bare["heads"][0]["ov"]) == {"norm", "copy"}


def turned_by_the_model(truth: Truth, q: np.ndarray, k: np.ndarray, distance: int) -> float:
    """One query and one key through the model's own rotary embedding, ``distance`` apart, at arbitrary positions."""
    import importlib

    import torch

    module = importlib.import_module(f"transformers.models.{truth.kind}.modeling_{truth.kind}")
    places = torch.tensor([[3 + distance, 3]])
    cos, sin = truth.rotary(torch.zeros(1, 2, 8, dtype=torch.float64), places)
    pair = torch.from_numpy(np.stack([q, k]))[None, None]  # [batch, head, place, d_head]
    turned = module.apply_rotary_pos_emb(pair, pair, cos.double(), sin.double())[0][0, 0]
    return float(turned[0] @ turned[1])


@pytest.mark.parametrize("model_type", ["llama", "gpt_neox", "gemma2"])
def test_the_shape_over_distance_is_the_models_own_rotation(tmp_path: Path, model_type: str) -> None:
    found, plan, (model, sae, _), _ = page(tmp_path, model_type, AttentionDefinition())
    truth = Truth(model, plan.layer)
    d = np.nan_to_num(load_file(sae / "sae_weights.safetensors")["W_dec"].astype(float))
    d[3] = 1.0
    d = d - d.mean(1, keepdims=True) if truth.centre else d
    x = d / np.maximum(np.linalg.norm(d, axis=1, keepdims=True), 1e-9) * 32**0.5
    (q, k, _), _ = truth.parts(x)
    s = float(getattr(truth.config, "query_pre_attn_scalar", None) or q.shape[2]) ** -0.5
    offsets = found["offsets"]
    window = truth.config.sliding_window if model_type == "gemma2" else 10**9  # layer 2 is a local one
    assert offsets == [offset for offset in (0, *schema.STABILITY_OFFSETS) if offset < window]
    for h, head in enumerate(found["heads"]):
        for side in schema.HEAD_SIDES:
            for partner in head[side][:2]:
                assert partner["distance"][0] == pytest.approx(partner["score"], rel=1e-4, abs=1e-5)
                i, j = (FEATURE, partner["feature"]) if side == "query" else (partner["feature"], FEATURE)
                wanted = [s * turned_by_the_model(truth, q[i, h], k[j, h], offset) for offset in offsets]
                np.testing.assert_allclose(partner["distance"], wanted, atol=1e-4)


def test_learned_positions_have_no_shape_over_distance(tmp_path: Path) -> None:
    found, *_ = page(tmp_path, "gpt2", AttentionDefinition())
    assert found["offsets"] == [] and found["heads"][0]["query"][0]["distance"] == []
