"""E2 and OV from checkpoint files to stored columns, on a tiny random model of every architecture.

The reference takes queries, keys, values and outputs out of the transformers model's own modules, in float64, and
reduces dense matrices with the plain formulas of ``tests/analysis/attention_reference.py``.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from tests.analysis import attention_reference as reference
from tests.fixtures.models import FAMILIES, tiny_model
from tests.fixtures.saes import tiny_sae
from wbtui import schema_attention as schema
from wbtui.analysis import nulls
from wbtui.catalog.models import find_model
from wbtui.catalog.plan_attention import AttentionPlan, no_reader, plan_attention, readers
from wbtui.catalog.saes import find_sae
from wbtui.compute.work import ShardTask, compute_shard
from wbtui.definitions import AttentionDefinition
from wbtui.errors import UsageError, WeightsError
from wbtui.store.keys import ProductSpec
from wbtui.store.products import Product

LAYER = 2
"""The reader of the fixtures' SAEs, at ``blocks.1.hook_resid_post``."""
CONTENT = AttentionDefinition()


def make_plan(
    model: Path, sae: Path, cache: Path, definition: AttentionDefinition = CONTENT, layer: int | None = None
) -> AttentionPlan:
    info = find_model(str(model))
    return plan_attention(info, find_sae(info, str(sae)), definition, cache, layer)


def fill(cache: Path, specs: list[ProductSpec], tile: int = 128) -> None:
    for spec in specs:
        product = Product(cache, spec)
        product.begin()
        for start, stop in product.missing():
            compute_shard(ShardTask(str(cache), spec.to_json(), start, stop, tile=tile))
        compute_shard(ShardTask(str(cache), spec.to_json(), kind="assemble"))


def columns_of(cache: Path, spec: ProductSpec) -> dict[str, np.ndarray]:
    found = Product(cache, spec).columns()
    return {name: np.array(found[name]) for name in found.names}


class Truth:
    """One layer of a saved model, by its own modules in float64."""

    def __init__(self, folder: Path, layer: int) -> None:
        import transformers

        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).double().eval()
        self.config = model.config.get_text_config()
        base = model.base_model
        base = getattr(base, "language_model", base)
        self.kind = self.config.model_type
        self.block = (base.h if self.kind == "gpt2" else base.layers)[layer]
        self.rotary = getattr(base, "rotary_emb", None)
        self.heads = self.config.num_attention_heads
        self.centre = self.kind in ("gpt2", "gpt_neox", "phi")
        self.softcap = getattr(self.config, "attn_logit_softcapping", None)
        self.stretch = getattr(self.rotary, "attention_scaling", 1.0) ** 2

    @torch.no_grad()
    def project(self, x: np.ndarray) -> list[np.ndarray]:
        """q, k, v ``[n, heads, d_head]`` of stream rows, in front of q/k norms, with biases; key/value heads repeated
        as the model does."""
        rows = torch.from_numpy(x)
        if self.kind == "gpt2":
            parts = self.block.attn.c_attn(self.block.ln_1(rows)).chunk(3, dim=1)
            found = [p.view(len(x), self.heads, -1) for p in parts]
        elif self.kind == "gpt_neox":
            fused = self.block.attention.query_key_value(self.block.input_layernorm(rows))
            found = list(fused.view(len(x), self.heads, -1).chunk(3, dim=2))
        else:
            attention = self.block.self_attn
            y = rows if self.kind == "olmo2" else self.block.input_layernorm(rows)
            if self.kind == "phi3":
                widths = [n * attention.head_dim for n in (self.heads, *[attention.num_key_value_heads] * 2)]
                flat = attention.qkv_proj(y).split(widths, dim=1)
            else:
                flat = [p(y) for p in (attention.q_proj, attention.k_proj, attention.v_proj)]
            found = [t.view(len(x), -1, attention.head_dim) for t in flat]
            if self.kind.startswith("qwen3_5"):  # the query, then its gate
                found[0] = found[0].view(len(x), self.heads, 2, -1)[:, :, 0]
            found = [found[0], *(t.repeat_interleave(attention.num_key_value_groups, dim=1) for t in found[1:])]
        return [t.numpy() for t in found]

    def parts(self, x: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Projections without their constants, and the constants ``[heads, d_head]`` (those of an empty stream)."""
        constant = [t[0] for t in self.project(np.zeros((1, x.shape[1])))]
        return [t - c for t, c in zip(self.project(x), constant, strict=True)], constant

    @torch.no_grad()
    def normed(self, x: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """q and k as they meet, through the model's own q/k norms, without their constants; and those."""
        attention = getattr(self.block, "self_attn", None)
        names = [n for n in ("q_norm", "k_norm", "q_layernorm", "k_layernorm") if hasattr(attention, n)]
        if not names:
            found, constant = self.parts(x)
            return found[:2], constant[:2]
        out, constants = [], []
        for name, t in zip(names, self.project(x), strict=False):
            norm, group = getattr(attention, name), 1 if name.startswith("q") else attention.num_key_value_groups
            y = torch.from_numpy(np.ascontiguousarray(t))[:, ::group]
            y = norm(y.flatten(1)).view_as(y) if self.kind == "olmo2" else norm(y)
            bias = getattr(norm, "bias", None)
            beta = torch.zeros_like(y[0]) if bias is None else bias.detach().expand_as(y[0])
            out.append((y - beta).repeat_interleave(group, dim=1).numpy())
            constants.append(beta.repeat_interleave(group, dim=0).numpy())
        return out, constants

    @torch.no_grad()
    def written(self, v: np.ndarray, head: int) -> np.ndarray:
        """What one head writes for values ``[n, d_head]``."""
        z = torch.zeros(len(v) + 1, self.heads, v.shape[1], dtype=torch.float64)
        z[1:, head] = torch.from_numpy(v)
        block = self.block
        inner = next(getattr(block, n) for n in ("attn", "attention", "self_attn") if hasattr(block, n))
        out = next(getattr(inner, n) for n in ("c_proj", "dense", "o_proj") if hasattr(inner, n))
        o = out(z.flatten(1))
        o = o[1:] - o[0]
        if hasattr(block, "post_feedforward_layernorm"):
            width = o.shape[1]
            o = o * block.post_attention_layernorm(torch.ones(1, width, dtype=torch.float64))[0]
        return o.numpy()

    def scores(self, head: int, rows: np.ndarray, others: np.ndarray) -> dict[str, np.ndarray]:
        width = others.shape[1]
        scale = getattr(self.config, "query_pre_attn_scalar", None)
        ((q, _), (b_q, b_k)), ((_, k), _) = self.normed(rows), self.normed(others)
        q, k, b_q, b_k = q[:, head], k[:, head], b_q[head], b_k[head]
        s = float(scale or q.shape[1]) ** -0.5 * self.stretch
        assert width == rows.shape[1]
        cosines = q @ k.T / np.linalg.norm(q, axis=1)[:, None] / np.linalg.norm(k, axis=1)
        return {"scores": s * q @ k.T, "cosines": cosines, "q": s * (q + b_q) @ b_k, "k": s * k @ b_q}

    def statistics(self, head: int, rows: np.ndarray, others: np.ndarray, **more: Any) -> dict[str, np.ndarray]:
        t = self.scores(head, rows, others)
        sinks = getattr(getattr(self.block, "self_attn", None), "sinks", None)
        sink = None if sinks is None else float(sinks[head].detach())
        q_terms = t["q"] if self.softcap or sink is not None else np.zeros(len(rows))
        found = reference.statistics(
            t["scores"], t["cosines"], softcap=self.softcap, query_terms=q_terms, key_terms=t["k"], sink=sink, **more
        )
        return found | {"key.prior": t["k"]}


def compare(
    found: dict[str, np.ndarray], wanted: dict[str, np.ndarray], head: int, side: str, prefix: str = ""
) -> None:
    for name in schema.attention_columns():
        if not name.startswith(side) or name.endswith("gain"):
            continue
        ours, theirs = np.atleast_1d(found[prefix + name][head]), wanted[name]
        if name.endswith("partner"):
            np.testing.assert_array_equal(ours, theirs, err_msg=name)
            continue
        size = max(np.sqrt((theirs.astype(float) ** 2).mean()), 1e-6)
        assert np.abs(ours - theirs).max() < 1e-4 * size, (name, head)


CHANGES: dict[str, dict[str, Any]] = {
    "gemma2": {"attn_logit_softcapping": 3.0},
    "qwen3_5": {"layer_types": ["full_attention", "linear_attention", "full_attention"]},
}


@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_number(tmp_path: Path, model_type: str) -> None:
    changes = CHANGES.get(model_type, {})
    model = tiny_model(tmp_path, model_type, seed=3, **changes)
    sae, cache = tiny_sae(tmp_path, model, d_sae=40), tmp_path / "cache"
    plan = make_plan(model, sae, cache)
    assert (plan.layer, plan.direct) == (LAYER, True)
    fill(cache, [plan.attention, plan.nulls[0], plan.ov, plan.ov_nulls[0]])
    found, ov = columns_of(cache, plan.attention), columns_of(cache, plan.ov)
    truth = Truth(model, LAYER)
    weights = load_file(sae / "sae_weights.safetensors")
    d = weights["W_dec"].astype("float64")
    x, mean = (reference.scale_rows(v, "rms", truth.centre) for v in (d, weights["b_dec"].astype("float64")[None]))
    random = nulls.directions("isotropic", 2000, 0, d_model=32).double().numpy()
    noise = reference.scale_rows(random, "rms", truth.centre)
    null, ov_null = columns_of(cache, plan.nulls[0]), columns_of(cache, plan.ov_nulls[0])
    gains = [truth.parts(v)[0] for v in (x, noise)]
    for head in range(truth.heads):
        own = truth.statistics(head, x, x)
        for side in schema.HEAD_SIDES:
            compare(found, own, head, side)
        lone = truth.statistics(head, x, mean, joins=True, partition=own["partition"])
        compare(found, truth.statistics(head, mean, x), head, "query", f"{schema.STREAM_MEAN}.")
        compare(found, lone, head, "key", f"{schema.STREAM_MEAN}.")
        compare(null, truth.statistics(head, noise, x), head, "query")
        compare(null, truth.statistics(head, x, noise, joins=True, partition=own["partition"]), head, "key")
        for which, side in ((0, "query"), (1, "key")):
            length, usual = (np.linalg.norm(g[which][:, head], axis=1) for g in gains)
            # the plan's own random directions have another seed, so the median moves by its standard error
            np.testing.assert_allclose(found[f"{side}.gain"][head], length / np.median(usual), rtol=0.05)
            np.testing.assert_allclose(
                found[f"{side}.gain"][head] / found[f"{side}.gain"][head][0], length / length[0], rtol=1e-4
            )
        v = truth.parts(x)[0][2][:, head] / np.sqrt(32)  # o is of the unit feature
        o = truth.written(v, head)
        target = d - d.mean(1, keepdims=True) if truth.centre else d
        o = o - o.mean(1, keepdims=True) if truth.centre else o
        norm = np.linalg.norm(o, axis=1)
        np.testing.assert_allclose(ov["ov.norm"][head], norm, rtol=1e-4)
        copy = (o * target).sum(1) / norm / np.linalg.norm(target, axis=1)
        np.testing.assert_allclose(ov["ov.copy"][head], copy, atol=1e-4)
        assert np.median(ov_null["ov.gain"][head]) == pytest.approx(1, abs=0.05)
    assert set(found) == set(schema.attention_columns()) | {schema.STABILITY} | {
        f"{schema.STREAM_MEAN}.{name}" for name in schema.attention_columns()
    }
    seen = np.isfinite(found[schema.STABILITY]).sum(1)
    # in three types layer 2 is local (16 keys), GPT-2 has learned positions
    local = {"gemma2": 4, "gemma3": 4, "gpt_oss": 4}
    assert (seen == {"gpt2": 0, **local}.get(model_type, len(schema.STABILITY_OFFSETS))).all()
    assert set(null) == set(schema.attention_columns())
    assert set(ov) == set(schema.ov_columns()) == set(ov_null)
    assert Product(cache, plan.attention).manifest()["rows"] == truth.heads


def test_bytes_are_reproducible_in_any_order_and_tile(tmp_path: Path) -> None:
    model = tiny_model(tmp_path, "gemma2")
    sae = tiny_sae(tmp_path, model, d_sae=150)
    one, two = tmp_path / "one", tmp_path / "two"
    plan = make_plan(model, sae, one)
    fill(one, plan.all())
    fill(two, plan.all()[::-1], tile=32)
    for spec in plan.all():
        a, b = (Product(cache, spec).path / "columns.safetensors" for cache in (one, two))
        assert a.read_bytes() == b.read_bytes(), spec.analysis


def test_bad_rows_are_absent_and_are_no_partners(tmp_path: Path) -> None:
    model, cache = tiny_model(tmp_path, "llama"), tmp_path / "cache"
    sae = tiny_sae(tmp_path, model, d_sae=40, zero_rows=[3], nan_rows=[5])
    plan = make_plan(model, sae, cache)
    fill(cache, plan.all(checks=False))
    found, ov = columns_of(cache, plan.attention), columns_of(cache, plan.ov)
    good = np.setdiff1d(np.arange(40), [3, 5])
    for name in schema.attention_columns():
        values = found[name]
        assert ((values[:, [3, 5]] == -1) if name.endswith("partner") else np.isnan(values[:, [3, 5]])).all(), name
        assert np.isfinite(values[:, good]).all(), name
    assert not np.isin(found["query.partner"], [3, 5]).any()
    np.testing.assert_allclose(found["key.received"][:, good].sum(1), len(good), rtol=1e-4)
    assert np.isnan(ov["ov.norm"][:, [3, 5]]).all() and np.isfinite(ov["ov.norm"][:, good]).all()
    fresh = tmp_path / "fresh"
    weights = {
        k: np.array(v)[..., good] if k == "W_enc" else np.array(v)
        for k, v in load_file(sae / "sae_weights.safetensors").items()
    }
    weights["W_dec"], weights["b_enc"] = weights["W_dec"][good], weights["b_enc"][good]
    save_file({k: np.ascontiguousarray(v) for k, v in weights.items()}, sae / "sae_weights.safetensors")
    config = json.loads((sae / "cfg.json").read_text())
    (sae / "cfg.json").write_text(json.dumps(config | {"d_sae": 38}))
    smaller = make_plan(model, sae, fresh)
    fill(fresh, [smaller.attention])
    without = columns_of(fresh, smaller.attention)
    np.testing.assert_allclose(found["query.max"][:, good], without["query.max"], rtol=1e-5)
    np.testing.assert_array_equal(found["key.partner"][:, good], good[without["key.partner"]])


def test_hooks_that_no_head_reads_say_so(tmp_path: Path) -> None:
    model = tiny_model(tmp_path, "llama")
    last = tiny_sae(tmp_path, model, layer=2)
    with pytest.raises(UsageError, match="no head reads resid_post of layer 2"):
        make_plan(model, last, tmp_path / "cache")
    info = find_model(str(model))
    assert no_reader(info, find_sae(info, str(last)))
    early = tiny_sae(tmp_path, model, layer=0)
    assert no_reader(info, find_sae(info, str(early))) is None
    assert readers(info, find_sae(info, str(early))) == (1, 2)
    with pytest.raises(UsageError, match="earlier heads"):
        make_plan(model, early, tmp_path / "cache", layer=0)
    with pytest.raises(UsageError):
        make_plan(model, early, tmp_path / "cache", layer=3)


def test_later_layers_are_products_of_their_own(tmp_path: Path) -> None:
    model, cache = tiny_model(tmp_path, "gemma2"), tmp_path / "cache"
    sae = tiny_sae(tmp_path, model, layer=0)
    first, later = make_plan(model, sae, cache), make_plan(model, sae, cache, layer=2)
    assert (first.layer, first.direct) == (1, True)
    assert (later.layer, later.direct) == (2, False)
    assert first.attention.key != later.attention.key and first.ov.key != later.ov.key
    assert first.attention.model_slug == later.attention.model_slug
    fill(cache, [first.attention, later.attention])
    assert not np.array_equal(
        columns_of(cache, first.attention)["query.max"], columns_of(cache, later.attention)["query.max"]
    )


def test_keys_follow_what_changes_numbers_and_nothing_else(tmp_path: Path) -> None:
    from wbtui.catalog.plan import plan_tokens
    from wbtui.definitions import TokensDefinition

    model, cache = tiny_model(tmp_path, "llama"), tmp_path / "cache"
    sae = tiny_sae(tmp_path, model)
    plan = make_plan(model, sae, cache)
    info = find_model(str(model))
    tokens = plan_tokens(info, find_sae(info, str(sae)), TokensDefinition(), cache).tokens
    assert (plan.attention.model_slug, plan.attention.sae_slug) == (tokens.model_slug, tokens.sae_slug)
    keys = {plan.attention.key}
    for change in (
        {"scale": "unit"},
        {"offset": 3},
        {"rope": "mean"},
        {"rope": "bound"},
        {"softcap": False},
        {"bias": False},
        {"seed": 1},
    ):
        other = make_plan(model, sae, cache, dataclasses.replace(CONTENT, **change))
        keys.add(other.attention.key)
        assert other.ov.key == plan.ov.key, "OV has no scores"
    assert len(keys) == 8
    assert make_plan(model, sae, cache, dataclasses.replace(CONTENT, name="mine")).attention.key == plan.attention.key
    assert all(ProductSpec.from_json(s.to_json()).key == s.key for s in plan.all())
    assert len({s.relative for s in plan.all()}) == len(plan.all()) == 8

    def with_config(**fields: Any) -> tuple[str, str]:
        path = model / "config.json"
        before = path.read_text()
        path.write_text(json.dumps(json.loads(before) | fields))
        try:
            return tuple(
                make_plan(model, sae, cache, d).attention.key for d in (CONTENT, AttentionDefinition(offset=1))
            )
        finally:
            path.write_text(before)

    content, offset = with_config()
    theta = {"rope_parameters": {"rope_type": "default", "rope_theta": 77.0}}
    assert with_config(**theta)[0] == content, "at offset 0 no rotation acts"
    assert with_config(**theta)[1] != offset
    weights = {k: np.array(v) for k, v in load_file(model / "model.safetensors").items()}
    for name, changed in (("layers.2.self_attn.q_proj", True), ("layers.2.mlp.up_proj", False)):
        mended = {k: v + 1 if name in k else v for k, v in weights.items()}
        save_file(mended, model / "model.safetensors")
        assert (make_plan(model, sae, cache).attention.key != plan.attention.key) == changed, name


def test_offsets_that_a_model_has_not_are_refused(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    gpt2, gemma = tiny_model(tmp_path, "gpt2"), tiny_model(tmp_path, "gemma2")
    with pytest.raises(UsageError, match="learned positions"):
        make_plan(gpt2, tiny_sae(tmp_path, gpt2), cache, AttentionDefinition(offset=1))
    sae = tiny_sae(tmp_path, gemma)
    with pytest.raises(UsageError, match="window is 16"):
        make_plan(gemma, sae, cache, AttentionDefinition(offset=16))
    with pytest.raises(UsageError, match="window is 16"):
        make_plan(gemma, sae, cache, AttentionDefinition(rope="mean"))
    make_plan(gemma, sae, cache, AttentionDefinition(offset=15))
    make_plan(gemma, sae, cache, AttentionDefinition(rope="mean", offsets=16))
    for wrong in ({"scale": "huge"}, {"rope": "spin"}, {"scale": "act"}, {"offset": -1}, {"n_key": 0}):
        with pytest.raises(UsageError):
            make_plan(gemma, sae, cache, AttentionDefinition(**wrong))


def test_a_tensor_that_is_not_there_is_named(tmp_path: Path) -> None:
    model = tiny_model(tmp_path, "llama")
    sae = tiny_sae(tmp_path, model)
    weights = {k: np.array(v) for k, v in load_file(model / "model.safetensors").items() if "2.self_attn.k" not in k}
    save_file(weights, model / "model.safetensors")
    with pytest.raises(WeightsError, match="k_proj"):
        make_plan(model, sae, tmp_path / "cache")


@pytest.mark.parametrize("site", ["attn_out", "mlp_out", "hook_z", "mlp_post"])
def test_hooks_beside_the_stream_have_no_mean_of_it(tmp_path: Path, site: str) -> None:
    model, cache = tiny_model(tmp_path, "gemma2"), tmp_path / "cache"
    sae = tiny_sae(tmp_path, model, site=site, d_sae=24)
    plan = make_plan(model, sae, cache)
    fill(cache, [plan.attention])
    found = columns_of(cache, plan.attention)
    assert np.isfinite(found["query.max"]).all()
    assert np.isnan(found[f"{schema.STREAM_MEAN}.query.rms"]).all()
