"""Both ends of a model against the model itself.

With ``x`` the residual stream in front of the final norm, ``norm(x) = (x - mean) / scale * gain + bias`` (mean and bias
for LayerNorm only) and ``logits = norm(x) W_U + b``. ``x`` and the logits are taken from the real transformers model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.fixtures import MODEL_TYPES, tiny_model
from tests.sources.conftest import IDS, Tap, load_reference
from wbtui.errors import WeightsError
from wbtui.sources.checkpoint import Checkpoint
from wbtui.sources.model import OutputMap, input_map, norm_gain, output_map

FINAL_NORM = {
    "gpt2": "transformer.ln_f",
    "gpt_neox": "gpt_neox.final_layer_norm",
    "phi": "model.final_layernorm",
    "gemma3": "model.language_model.norm",
}
LAYER_NORM = ("gpt2", "gpt_neox", "phi")
TOLERANCE = 1e-4


def our_logits(x: torch.Tensor, out: OutputMap, config: Any) -> torch.Tensor:
    """The formula of this module's docstring, from our tensors alone."""
    if out.centre:
        x = x - x.mean(-1, keepdim=True)
    y = x / (x.pow(2).mean(-1, keepdim=True) + epsilon(config)).sqrt() * out.gain
    if out.final_norm_bias is not None:
        y = y + out.final_norm_bias
    logits = y @ out.tokens.float().T
    if out.logit_bias is not None:
        logits = logits + out.logit_bias
    cap = getattr(config, "final_logit_softcapping", None)
    return cap * torch.tanh(logits / cap) if cap else logits


def epsilon(config: Any) -> float:
    """The norm's epsilon, by whichever name the type has."""
    names = ("rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps")
    return next(float(getattr(config, name)) for name in names if hasattr(config, name))


def error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest difference in units of each row's standard deviation."""
    return float(((ours - theirs).abs() / theirs.std(-1, keepdim=True)).max())


def reference(folder: Path, model_type: str) -> tuple[Any, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(config, x in front of the final norm, logits, first hidden state) of the real model."""
    model = load_reference(folder)
    name = FINAL_NORM.get(model_type, "model.norm")
    tap = Tap(model, name)
    with torch.no_grad():
        result = model(IDS, output_hidden_states=True)
    return model.config.get_text_config(), tap.inputs[name], result.logits[0], result.hidden_states[0][0]


@pytest.mark.parametrize("tied", [None, True, False])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_logits_equal_the_models_own(model_type: str, tied: bool | None, tmp_path: Path) -> None:
    """GIVEN a random model WHEN logits are made from its residual stream by our maps THEN they are the model's."""
    folder = tiny_model(tmp_path, model_type, seed=3, tied=tied)
    config, x, logits, _ = reference(folder, model_type)
    out = output_map(Checkpoint(folder))
    assert error(our_logits(x, out, config), logits) < TOLERANCE


@pytest.mark.parametrize("model_type", ["gemma", "gemma2", "gemma3_text", "gemma3", "qwen3_5_text", "qwen3_5"])
def test_gain_without_the_one_is_wrong(model_type: str, models: dict[str, Path]) -> None:
    """Negative control: w instead of 1 + w must not pass."""
    config, x, logits, _ = reference(models[model_type], model_type)
    out = output_map(Checkpoint(models[model_type]))
    out.gain = out.gain - 1.0
    assert error(our_logits(x, out, config), logits) > 0.1


@pytest.mark.parametrize("model_type", LAYER_NORM)
def test_without_centring_is_wrong(model_type: str, models: dict[str, Path]) -> None:
    """Negative control: a LayerNorm without its mean must not pass."""
    config, x, logits, _ = reference(models[model_type], model_type)
    out = output_map(Checkpoint(models[model_type]))
    assert out.centre
    out.centre = False
    assert error(our_logits(x, out, config), logits) > 0.01


@pytest.mark.parametrize("model_type", LAYER_NORM)
def test_without_the_norms_bias_is_wrong(model_type: str, models: dict[str, Path]) -> None:
    """Negative control: the bias is there and matters for logits, though not for what one feature writes."""
    config, x, logits, _ = reference(models[model_type], model_type)
    out = output_map(Checkpoint(models[model_type]))
    out.final_norm_bias = None
    assert error(our_logits(x, out, config), logits) > 0.01


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_direction_moves_logits_by_the_folded_product(model_type: str, models: dict[str, Path]) -> None:
    """``f(x) = scale(x) (norm(x) - bias) W_U`` of the real model: ``f(x + d) - f(x) = d P diag(gain) W_U``."""
    model = load_reference(models[model_type]).double()
    norm, head = model.get_submodule(FINAL_NORM.get(model_type, "model.norm")), model.get_output_embeddings()
    out = output_map(Checkpoint(models[model_type]))

    def f(x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True) if out.centre else x
        scale = (centred.pow(2).mean(-1, keepdim=True) + epsilon(model.config.get_text_config())).sqrt()
        bias = out.final_norm_bias.double() if out.final_norm_bias is not None else 0.0
        return torch.nn.functional.linear(norm(x) - bias, head.weight) * scale

    x, d = torch.randn(2, 5, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    folded = (d - d.mean(-1, keepdim=True) if out.centre else d) * out.gain
    with torch.no_grad():
        assert error(folded @ out.tokens.double().T, f(x + d) - f(x)) < TOLERANCE


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_embedding_equals_the_first_hidden_state(model_type: str, models: dict[str, Path]) -> None:
    """Token rows times alpha are what the model starts from (plus learned positions in GPT-2)."""
    _, _, _, first = reference(models[model_type], model_type)
    ckpt = Checkpoint(models[model_type])
    ends = input_map(ckpt)
    ours = ends.tokens[IDS[0]] * ends.scale
    if model_type == "gpt2":
        ours = ours + ckpt.tensor("wpe.weight")[: IDS.shape[1]]
    assert torch.allclose(ours, first, atol=1e-5)
    assert ends.scale == pytest.approx(32**0.5 if model_type.startswith("gemma") else 1.0)
    assert ends.centre == (model_type in LAYER_NORM)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_narrow_dtypes_stay_mapped_and_promote_exactly(model_type: str, dtype: str, tmp_path: Path) -> None:
    """GIVEN bf16 or fp16 weights THEN token rows keep their dtype and logits in float32 are the model's in float32."""
    folder = tiny_model(tmp_path, model_type, seed=4, dtype=dtype)
    config, x, logits, _ = reference(folder, model_type)
    out = output_map(Checkpoint(folder))
    assert out.tokens.dtype == getattr(torch, dtype)
    assert out.gain.dtype == torch.float32
    assert error(our_logits(x, out, config), logits) < TOLERANCE


def test_gemma_gain_is_added_in_float32(tmp_path: Path) -> None:
    """1 + w of a bf16 w is not rounded to bf16."""
    folder = tiny_model(tmp_path, "gemma2", dtype="bfloat16")
    ckpt = Checkpoint(folder)
    weight = ckpt.tensor("norm.weight")
    assert torch.equal(norm_gain(ckpt, "norm.weight"), 1.0 + weight.float())
    assert not torch.equal(norm_gain(ckpt, "norm.weight"), (1.0 + weight).float())


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_tied_ends_share_storage(model_type: str, tmp_path: Path) -> None:
    ckpt = Checkpoint(tiny_model(tmp_path, model_type, tied=True))
    assert output_map(ckpt).tokens.data_ptr() == input_map(ckpt).tokens.data_ptr()
    other = Checkpoint(tiny_model(tmp_path, model_type, tied=False))
    assert not torch.equal(output_map(other).tokens, input_map(other).tokens)


@pytest.mark.parametrize("model_type", ["llama", "gpt_neox", "gemma2"])
def test_untied_without_unembedding_is_refused(model_type: str, tmp_path: Path) -> None:
    folder = tiny_model(tmp_path, model_type, tied=True)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    with pytest.raises(WeightsError, match="not tied") as caught:
        output_map(Checkpoint(folder))
    assert caught.value.expected


def test_tied_beside_another_unembedding_is_refused(tmp_path: Path) -> None:
    """GIVEN a config that says tied and a file with a different lm_head THEN no guess; with an equal one, fine."""
    folder = tiny_model(tmp_path, "llama", tied=False)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    with pytest.raises(WeightsError, match="differs"):
        output_map(Checkpoint(folder))
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / "model.safetensors")
    ckpt = Checkpoint(folder)
    assert output_map(ckpt).tokens is input_map(ckpt).tokens


def test_one_dtype_for_each_tensor(tmp_path: Path) -> None:
    """Mixed files: each tensor keeps its own dtype."""
    folder = tiny_model(tmp_path, "gemma2")
    tensors = load_file(folder / "model.safetensors")
    embedding = tensors["model.embed_tokens.weight"]
    tensors["model.embed_tokens.weight"] = embedding.to(torch.bfloat16)
    save_file(tensors, folder / "model.safetensors")
    out = output_map(Checkpoint(folder))
    assert out.tokens.dtype == torch.bfloat16
    assert torch.equal(out.tokens, embedding.to(torch.bfloat16))
    assert torch.equal(out.gain, 1.0 + tensors["model.norm.weight"])


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_headless_checkpoints_without_prefix(model_type: str, models: dict[str, Path], tmp_path: Path) -> None:
    """GIVEN tensors saved from the bare model, without module prefix, THEN the same ends are found."""
    ckpt = Checkpoint(models[model_type])
    prefix = ckpt.architecture.prefixes[0]
    tensors = {}
    for path in models[model_type].glob("*.safetensors"):
        tensors |= {name.removeprefix(prefix): tensor for name, tensor in load_file(path).items()}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((models[model_type] / "config.json").read_text())
    bare, whole = output_map(Checkpoint(tmp_path)), output_map(ckpt)
    assert torch.equal(bare.tokens, whole.tokens)
    assert torch.equal(bare.gain, whole.gain)
    assert torch.equal(input_map(Checkpoint(tmp_path)).tokens, input_map(ckpt).tokens)


@pytest.mark.parametrize("field", ["vocab_size", "width"])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_config_of_another_size_is_refused(model_type: str, field: str, tmp_path: Path) -> None:
    folder = tiny_model(tmp_path, model_type)
    config = json.loads((folder / "config.json").read_text())
    key = field if field == "vocab_size" else ("n_embd" if model_type == "gpt2" else "hidden_size")
    config.get("text_config", config)[key] += 4
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="has shape") as caught:
        output_map(Checkpoint(folder))
    assert "config.json" in caught.value.expected
