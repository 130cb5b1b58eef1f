"""What heads take from configs of either style, and what is refused; numbers against the real models (methods 3.5)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.sources.test_attention import CLOSE, build, miss, truth
from wbtui.catalog.attention import AttentionLayout, attention_facts
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
    ],
)
def test_both_styles_of_rotary_configs(tmp_path: Path, model_type: str, fields: dict[str, Any]) -> None:
    folder = build(tmp_path, model_type)
    rewrite(folder, ("rope_parameters", "layer_types"), **fields)
    source = AttentionSource(Checkpoint(folder), 1)
    assert source.facts.rope is not None
    assert miss(source, truth(folder, 1)) < CLOSE


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
