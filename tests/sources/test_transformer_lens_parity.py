"""Folded query, key, value and output matrices against TransformerLens's own folding of the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.fixtures import PLAIN_TYPES, tiny_model
from tests.sources.conftest import load_reference
from wbtui.sources.attention import AttentionSource
from wbtui.sources.checkpoint import Checkpoint

LAYER = 1


def folded_by_transformer_lens(folder: Path) -> Any:
    """The attention block of one layer of a HookedTransformer, its norms folded."""
    pytest.importorskip("transformer_lens")
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.pretrained import weight_conversions

    model, dims = load_reference(folder), Checkpoint(folder).dims
    kind = model.config.model_type
    layer_norm = kind in ("gpt2", "gpt_neox")
    cfg = HookedTransformerConfig(
        n_layers=dims.n_layers,
        d_model=dims.d_model,
        n_ctx=64,
        d_head=dims.d_head,
        n_heads=dims.n_heads,
        d_mlp=dims.d_mlp,
        d_vocab=dims.d_vocab,
        act_fn="gelu",
        normalization_type="LN" if layer_norm else "RMS",
        positional_embedding_type="standard" if kind == "gpt2" else "rotary",
        rotary_dim=dims.d_head,
        n_key_value_heads=None if layer_norm else 2,
        gated_mlp=not layer_norm,
        final_rms=not layer_norm,
        use_normalization_before_and_after=kind == "gemma2",
        parallel_attn_mlp=kind == "gpt_neox",
        original_architecture=model.config.architectures[0],
        device="cpu",
        eps=1e-5,
    )
    name = {"gpt_neox": "neox", "gemma2": "gemma"}.get(kind, kind)
    state = getattr(weight_conversions, f"convert_{name}_weights")(model, cfg)
    hooked = HookedTransformer(cfg)
    hooked.load_and_process_state_dict(
        state, fold_ln=True, center_writing_weights=False, center_unembed=False, fold_value_biases=False
    )
    return hooked.blocks[LAYER].attn


@pytest.mark.parametrize("model_type", PLAIN_TYPES)
def test_folded_weights(tmp_path: Path, model_type: str) -> None:
    folder = tiny_model(tmp_path, model_type)
    theirs = folded_by_transformer_lens(folder)
    ckpt = Checkpoint(folder)
    source = AttentionSource(ckpt, LAYER)
    for head in range(ckpt.dims.n_heads):
        ours = {"Q": source.query(head), "K": source.key(head), "V": source.value(head)}
        for which, projection in ours.items():
            assert_equal(projection.matrix, getattr(theirs, f"W_{which}")[head])
            if projection.bias is not None:
                assert_equal(projection.bias, getattr(theirs, f"b_{which}")[head])
        out = theirs.W_O[head]
        if model_type == "gemma2":  # TransformerLens leaves the norm behind attention apart
            out = out * (1 + ckpt.tensor(f"layers.{LAYER}.post_attention_layernorm.weight"))
        assert_equal(source.out(head), out)


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("qwen3", {}),
        ("qwen3_moe", {}),
        ("gemma3_text", {}),
        ("olmo2", {}),
        ("phi", {"qk_layernorm": False}),  # with these norms TransformerLens refuses the model
        ("phi3", {}),
        ("gpt_oss", {}),
    ],
)
def test_folded_weights_of_the_bridge(
    tmp_path: Path, model_type: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Qwen3.5 is not among them: TransformerLens does not split its fused query and gate."""
    pytest.importorskip("transformer_lens")
    from transformer_lens.model_bridge import TransformerBridge

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the bridge wants to install packages")

    monkeypatch.setattr("subprocess.check_call", refuse)
    folder = tiny_model(tmp_path, model_type, **changes)
    bridge = TransformerBridge.boot_transformers(str(folder), hf_model=load_reference(folder), device="cpu")
    bridge.enable_compatibility_mode(
        disable_warnings=True,
        fold_ln=True,
        center_writing_weights=False,
        center_unembed=False,
        fold_value_biases=False,
    )
    theirs, ckpt = bridge.blocks[LAYER].attn, Checkpoint(folder)
    source = AttentionSource(ckpt, LAYER)
    for head in range(ckpt.dims.n_heads):
        assert_equal(source.query(head).matrix, theirs.W_Q[head])
        assert_equal(source.key(head).matrix, theirs.W_K[source.kv_head(head)])
        assert_equal(source.value(head).matrix, theirs.W_V[source.kv_head(head)])
        out = theirs.W_O[head]
        post = ckpt.architecture.post_attention_norm
        if post is not None:  # TransformerLens leaves the norm behind attention apart
            out = out * (ckpt.architecture.gain_offset + ckpt.tensor(post.format(l=LAYER)))
        assert_equal(source.out(head), out)


def assert_equal(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs.detach(), atol=1e-6, rtol=1e-5)
