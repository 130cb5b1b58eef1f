"""What heads take from configs of either style, and what is refused; numbers against the real models (methods 3.5)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.sources.test_attention import CLOSE, build, miss, truth
from wbtui.catalog.architectures import ARCHITECTURES
from wbtui.catalog.attention import AttentionFacts, AttentionLayout, attention_facts, headless_layers
from wbtui.catalog.models import model_info
from wbtui.errors import UsageError, WeightsError
from wbtui.sources.attention import AttentionSource
from wbtui.sources.checkpoint import Checkpoint

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LONG = {
    "rope_theta": 500.0,
    "partial_rotary_factor": 0.5,
    "original_max_position_embeddings": 150,
    "max_position_embeddings": 400,
}


def rewrite(folder: Path, drop: tuple[str, ...], **fields: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for key in drop:
        config.pop(key, None)
    path.write_text(json.dumps(config | fields))


@pytest.mark.parametrize(
    ("model_type", "fields"),
    [
        ("llama", {"rope_parameters": {**LLAMA3, "rope_theta": 5000.0}}),
        ("llama", {"rope_theta": 5000.0, "rope_scaling": LLAMA3}),
        ("llama", {"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 4.0}}),
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0}}),
        ("qwen2", {"rope_theta": 1000.0, "rope_scaling": None}),
        ("mistral", {"rope_theta": 1000.0}),
        ("gemma", {"rope_theta": 1000.0}),
        ("gemma2", {"rope_theta": 1000.0}),
        ("gpt_neox", {"rotary_pct": 0.5, "rotary_emb_base": 1000}),
        ("gpt_neox", {"rope_parameters": {"rope_type": "default", "rope_theta": 99.0, "partial_rotary_factor": 0.75}}),
        ("gpt_neox", {}),
        ("llama", {}),
        ("llama", {"rope_theta": 500.0, "rope_scaling": YARN}),
        ("llama", {"rope_parameters": {**YARN, "rope_theta": 500.0, "mscale": 2.0, "mscale_all_dim": 0.5}}),
        ("llama", {"rope_theta": 500.0, "rope_scaling": {"rope_type": "dynamic", "factor": 4.0}}),
        ("qwen3", {"rope_theta": 500.0, "rope_scaling": {**YARN, "truncate": False}}),
        ("qwen3_moe", {"rope_theta": 500.0, "rope_scaling": None}),
        ("olmo2", {"rope_theta": 500.0}),
        ("phi", {"rope_theta": 500.0, "partial_rotary_factor": 0.75}),
        ("phi", {}),
        ("phi3", {**LONG, "rope_scaling": {"type": "longrope", "short_factor": [1.0, 1.5], "long_factor": [2.0, 9.0]}}),
        ("phi3", {**LONG, "rope_scaling": {"type": "yarn", "short_factor": [1.0, 1.5], "long_factor": [2.0, 9.0]}}),
        ("gpt_oss", {}),
        ("gpt_oss", {"rope_theta": 150.0, "rope_scaling": {**YARN, "attention_factor": 1.5}}),
        ("qwen3_5_text", {"rope_theta": 500.0, "partial_rotary_factor": 0.5}),
        ("gemma3_text", {"rope_theta": 500.0, "rope_local_base_freq": 50.0}),
        ("gemma3_text", {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}),
        ("gemma3_text", {"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0}}}),
    ],
)
def test_both_styles_of_rotary_configs(tmp_path: Path, model_type: str, fields: dict[str, Any]) -> None:
    folder = build(tmp_path, model_type)
    keep = model_type.startswith("qwen3_5")  # whose own pattern has no head in the first layers
    rewrite(folder, ("rope_parameters", *(() if keep else ("layer_types",))), **fields)
    for layer in (0, 1) if model_type.startswith("gemma3") else (1,):
        source = AttentionSource(Checkpoint(folder), layer)
        assert source.facts.rope is not None
        assert miss(source, truth(folder, layer)) < CLOSE


def test_angles_beyond_reach_and_factors_are_told(tmp_path: Path) -> None:
    scaling = {"type": "longrope", "short_factor": [1.0, 1.5], "long_factor": [2.0, 9.0]}
    folder = build(tmp_path, "phi3")
    rewrite(folder, ("rope_parameters",), **LONG, rope_scaling=scaling)
    facts = AttentionSource(Checkpoint(folder), 1).facts
    assert facts.rope is not None and facts.rope.reach == 150
    assert facts.rotary_gain > 1.05 and facts.rotary_dims == 4, "half of the head turns, and alone is stretched"
    assert AttentionFacts.from_json(json.loads(json.dumps(facts.to_json()))) == facts


def test_a_wrapper_that_names_little(tmp_path: Path) -> None:
    """As google/gemma-3-4b-it: the text model's config holds five fields, its class the rest."""
    folder = build(
        tmp_path, "gemma3", vocab_size=409, num_attention_heads=8, num_key_value_heads=4, head_dim=256,
        query_pre_attn_scalar=256, sliding_window_pattern=6, layer_types=None,
    )  # fmt: skip
    path = folder / "config.json"
    config = json.loads(path.read_text())
    kept = ("hidden_size", "intermediate_size", "model_type", "num_hidden_layers", "sliding_window", "vocab_size")
    text = {k: config["text_config"][k] for k in kept} | {"rope_scaling": {"factor": 8.0, "rope_type": "linear"}}
    path.write_text(json.dumps({k: v for k, v in config.items() if "tie" not in k} | {"text_config": text}))
    source = AttentionSource(Checkpoint(folder), 1)
    assert (source.facts.n_heads, source.facts.n_kv_heads, source.facts.d_head) == (8, 4, 256)
    assert miss(source, truth(folder, 1)) < CLOSE


def test_defaults_are_those_of_the_classes() -> None:
    """What the table fills in for a missing field is what transformers' own config class fills in."""
    import transformers

    for model_type, arch in ARCHITECTURES.items():
        kind = {"gemma3": "gemma3_text", "qwen3_5": "qwen3_5_text"}.get(model_type, model_type)
        real = transformers.CONFIG_MAPPING[kind]()
        given = transformers.CONFIG_MAPPING[kind]
        for key, value in arch.defaults.items():
            theirs = getattr(given, key) if key == "sliding_window" else getattr(real, key)
            if key == "rope_parameters":
                theirs = {k: v for k, v in theirs.items() if k != "rope_theta"}
            assert theirs == value, (model_type, key)
        if arch.attention.rope == "half" and arch.attention.rope_local_theta is None:
            assert real.rope_parameters["rope_theta"] == arch.attention.rope_theta_default, model_type
            share = real.rope_parameters.get("partial_rotary_factor", 1.0)
            assert share == arch.attention.rope_share_default, model_type


def test_layers_of_linear_attention_have_no_heads(tmp_path: Path) -> None:
    folder = build(tmp_path, "qwen3_5")
    info = model_info("m", folder, "folder")
    assert info.headless == (2,)
    with pytest.raises(UsageError, match="linear attention"):
        AttentionSource(Checkpoint(folder), 2)
    text = json.loads((folder / "config.json").read_text())["text_config"]
    del text["layer_types"]
    layers = headless_layers(text, ARCHITECTURES["qwen3_5"].attention, 8, "config.json")
    assert layers == (0, 1, 2, 4, 5, 6), "every fourth layer has heads"


def test_configs_that_lack_fields(tmp_path: Path) -> None:
    """Hub checkpoints leave out what the class fills in."""
    folder = build(tmp_path, "gemma2", num_key_value_heads=4, attn_logit_softcapping=50.0, query_pre_attn_scalar=256)
    rewrite(
        folder,
        ("num_key_value_heads", "attn_logit_softcapping", "query_pre_attn_scalar", "layer_types", "rope_parameters"),
    )
    for layer, window in ((0, 131), (1, None), (2, 131)):
        source = AttentionSource(Checkpoint(folder), layer)
        assert source.facts.window == window
        assert (source.facts.softcap, source.facts.scale, source.facts.n_kv_heads) == (50.0, 1 / 16, 4)
        assert miss(source, truth(folder, layer)) < CLOSE


@pytest.mark.parametrize("switch", [{"scale_attn_by_inverse_layer_idx": True}, {"scale_attn_weights": False}])
def test_gpt2_score_switches(tmp_path: Path, switch: dict[str, bool]) -> None:
    folder = build(tmp_path, "gpt2", **switch)
    assert miss(AttentionSource(Checkpoint(folder), 1), truth(folder, 1)) < CLOSE


def test_qwen_windows(tmp_path: Path) -> None:
    folder = build(tmp_path, "qwen2", use_sliding_window=True, sliding_window=130, max_window_layers=1)
    for drop in ((), ("layer_types",)):
        rewrite(folder, drop)
        windows = [AttentionSource(Checkpoint(folder), layer).facts.window for layer in range(3)]
        assert windows == [None, 130, 130]
        assert miss(AttentionSource(Checkpoint(folder), 1), truth(folder, 1)) < CLOSE


def test_nested_rope_parameters_are_taken_by_layer_type() -> None:
    config = {
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
            "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
        },
    }
    layout = AttentionLayout(layers="pattern", rope_local_theta="rope_local_base_freq")
    local, whole = (attention_facts(config, layout, 4, 16, layer, "config.json").rope for layer in (0, 1))
    assert local is not None and whole is not None
    assert (local.theta, local.kind) == (10_000.0, "default")
    assert (whole.theta, whole.kind, whole.factor) == (1e6, "linear", 8.0)


@pytest.mark.parametrize(
    "config",
    [
        {"rope_scaling": {"rope_type": "proportional", "factor": 4.0}},
        {"rope_theta": "wide"},
        {"rope_scaling": {"type": "linear"}},
        {"num_key_value_heads": 3},
        {"rope_parameters": {"full_attention": {"rope_theta": 1e4}}},
        {"rope_scaling": LLAMA3 | {"low_freq_factor": 4.0}},
        {"partial_rotary_factor": 0.5},
        {"rope_theta": 1},
        {"rope_scaling": YARN | {"factor": "4"}},
        {"rope_scaling": YARN | {"beta_fast": -1}},
        {"rope_scaling": {"rope_type": "longrope", "short_factor": [1.0], "original_max_position_embeddings": 9}},
        {"rope_scaling": {"rope_type": ["yarn"]}},
        {"rope_parameters": "none"},
        {"rope_scaling": YARN | {"original_max_position_embeddings": 0.5}},
        {"rope_scaling": YARN | {"factor": None, "original_max_position_embeddings": 0.5}},
        {"num_key_value_heads": 0.5},
        {"query_pre_attn_scalar": float("nan"), "rope_theta": float("nan")},
    ],
)
def test_what_is_not_known_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(WeightsError) as caught:
        attention_facts(config, AttentionLayout(), 4, 16, 0, "config.json")
    assert "config.json" in str(caught.value)


@pytest.mark.parametrize("name", ["q_proj.weight", "k_proj.bias", "o_proj.weight"])
def test_weights_that_are_not_finite_are_named(tmp_path: Path, name: str) -> None:
    from safetensors.torch import load_file, save_file

    folder = build(tmp_path, "llama")
    weights = load_file(folder / "model.safetensors")
    weights[f"model.layers.1.self_attn.{name}"][0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    source = AttentionSource(Checkpoint(folder), 1)
    with pytest.raises(WeightsError, match="layer 1, head 0"):
        [use(0) for use in (source.query, source.key, source.out)]
    source = AttentionSource(Checkpoint(folder), 2)
    assert torch.isfinite(source.query(0).matrix).all()


def test_a_layer_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        AttentionSource(Checkpoint(build(tmp_path, "llama")), 3)
