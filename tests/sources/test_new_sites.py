"""Where SAEs sit in the newer model types: heads and neurons through the model's own modules, transcoders, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.fixtures import tiny_model, tiny_sae
from tests.sources.conftest import load_reference, source_of
from wbtui.catalog.attention import AttentionFacts
from wbtui.catalog.models import find_model
from wbtui.catalog.plan import plan_tokens
from wbtui.catalog.plan_attention import no_reader, plan_attention, readers
from wbtui.catalog.saes import find_sae
from wbtui.definitions import AttentionDefinition, TokensDefinition
from wbtui.errors import UsageError, WeightsError

TYPES = ("qwen3", "gemma3", "olmo2", "phi", "phi3", "qwen3_5")
LAYER = 1


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("site-models")
    return {t: tiny_model(root, t, seed=4) for t in TYPES}


def block(folder: Path) -> Any:
    base = load_reference(folder).base_model
    return getattr(base, "language_model", base).layers[LAYER]


@pytest.mark.parametrize("site", ["hook_z", "mlp_post"])
@pytest.mark.parametrize("model_type", TYPES)
@torch.no_grad()
def test_heads_and_neurons(folders: dict[str, Path], model_type: str, site: str, tmp_path: Path) -> None:
    """Rows are what the model's own output module, and the gain of its norm behind, make of them."""
    folder = folders[model_type]
    _, source = source_of(folder, tiny_sae(tmp_path, folder, site=site, layer=LAYER))
    layer = block(folder)
    attention, mlp = layer.self_attn, layer.mlp
    module = next(
        getattr(at, name)
        for at, name in ((attention, "o_proj"), (attention, "dense"), (mlp, "down_proj"), (mlp, "fc2"))
        if (at is attention) == (site == "hook_z") and hasattr(at, name)
    )
    from safetensors.torch import load_file

    weights = load_file(Path(source.info.path) / "sae_weights.safetensors")["W_dec"]
    wanted = module(weights) - module(torch.zeros_like(weights[:1]))
    if hasattr(layer, "post_feedforward_layernorm"):
        norm = layer.post_attention_layernorm if site == "hook_z" else layer.post_feedforward_layernorm
        wanted = wanted * norm(torch.ones(1, wanted.shape[1]))
    torch.testing.assert_close(source.decoder_rows(0, source.n), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("model_type", TYPES)
@torch.no_grad()
def test_transcoders_read_what_the_mlp_reads(folders: dict[str, Path], model_type: str, tmp_path: Path) -> None:
    folder = folders[model_type]
    layer = block(folder)
    sae = tiny_sae(tmp_path, folder, architecture="transcoder", layer=LAYER)
    config = json.loads((sae / "cfg.json").read_text())
    (sae / "cfg.json").write_text(json.dumps({**config, "apply_b_dec_to_input": False}))
    info, source = source_of(folder, sae)
    from safetensors.torch import load_file

    weights = load_file(Path(info.path) / "sae_weights.safetensors")["W_enc"]
    named = {"olmo2": "", "phi": "input_layernorm", "gemma3": "pre_feedforward_layernorm"}
    norm = getattr(layer, named.get(model_type, "post_attention_layernorm"), None)
    x = torch.randn(7, 32, generator=torch.Generator().manual_seed(2))
    seen, scale = x, torch.ones(7, 1)
    if norm is not None:
        bias = getattr(norm, "bias", None)
        seen = norm(x) if bias is None else norm(x) - bias
        squares = x - x.mean(1, keepdim=True) if model_type == "phi" else x
        scale = squares.square().mean(1, keepdim=True).sqrt()
    e = source.encoder_rows(0, source.n)
    assert e is not None
    if model_type == "phi":
        x = x - x.mean(1, keepdim=True)
    torch.testing.assert_close(x @ e.T / scale, seen @ weights, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("model_type", ["qwen3_moe", "gpt_oss"])
def test_neurons_of_experts_are_refused(tmp_path: Path, model_type: str) -> None:
    model = tiny_model(tmp_path, model_type)
    info = find_model(str(model))
    sae = find_sae(info, str(tiny_sae(tmp_path, model, site="mlp_post")))
    with pytest.raises(WeightsError, match="mixture of experts"):
        plan_tokens(info, sae, TokensDefinition(), tmp_path / "cache")


def test_readers_skip_layers_without_heads(tmp_path: Path) -> None:
    kinds = ["full_attention", "linear_attention", "full_attention"]
    model = tiny_model(tmp_path, "qwen3_5", layer_types=kinds)
    info = find_model(str(model))
    sae = find_sae(info, str(tiny_sae(tmp_path, model, layer=0)))
    assert readers(info, sae) == (2,)
    plan = plan_attention(info, sae, AttentionDefinition(), tmp_path / "cache")
    assert (plan.layer, plan.direct, plan.normalised) == (2, False, True)
    assert "OV per unit of the head's gate" in plan.facts.words
    with pytest.raises(UsageError, match=r"layer 1 has no heads.*: 2"):
        plan_attention(info, sae, AttentionDefinition(), tmp_path / "cache", 1)
    last = tiny_model(tmp_path, "qwen3_5", layer_types=["full_attention", "full_attention", "linear_attention"])
    info = find_model(str(last))
    sae = find_sae(info, str(tiny_sae(tmp_path, last, layer=1)))
    assert "linear attention" in str(no_reader(info, sae))


def test_words_of_heads(tmp_path: Path) -> None:
    def facts(model_type: str) -> AttentionFacts:
        model = tiny_model(tmp_path, model_type)
        info = find_model(str(model))
        sae = find_sae(info, str(tiny_sae(tmp_path, model, layer=0)))
        return plan_attention(info, sae, AttentionDefinition(), tmp_path / "cache").facts

    assert (facts("llama").words, facts("llama").marks) == ((), "")
    assert facts("olmo2").words == ("per-feature normalised (q/k norms)", "normalised over all heads together")
    assert facts("gpt_oss").words == ("a sink joins each softmax: attention sums below 1",)
    assert (facts("olmo2").marks, facts("gpt_oss").marks) == ("q/k norms", "sink")


def test_offsets_beyond_the_reach_of_longrope_are_refused(tmp_path: Path) -> None:
    model = tiny_model(tmp_path, "phi3")
    config = json.loads((model / "config.json").read_text())
    config |= {"original_max_position_embeddings": 32, "max_position_embeddings": 400}
    config["rope_parameters"] = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    (model / "config.json").write_text(json.dumps(config))
    info = find_model(str(model))
    sae = find_sae(info, str(tiny_sae(tmp_path, model, layer=0)))
    plan_attention(info, sae, AttentionDefinition(offset=31), tmp_path / "cache")
    with pytest.raises(UsageError, match="other angles"):
        plan_attention(info, sae, AttentionDefinition(offset=32), tmp_path / "cache")
