"""One table: model type -> tensor names, layouts, norms, scales. Data only; unknown types are refused.

Facts: methods 3.1, 3.3, 3.4. Tensor names are those that transformers saves; ``prefixes`` are the module prefixes a
checkpoint may carry (a headless model saves without them).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from wbtui.catalog.attention import AttentionLayout
from wbtui.errors import WeightsError


@dataclass(frozen=True)
class Architecture:
    """How one model type stores what out-of-context analysis needs. ``{l}`` stands for the layer."""

    model_type: str
    prefixes: tuple[str, ...]
    embedding: str
    final_norm: str
    unembedding: str
    """Name of the untied unembedding, without a prefix."""
    tied_default: bool
    """``tie_word_embeddings`` where the config does not say."""
    norm: str
    """``rms`` or ``layer`` (mean-centring, with a bias)."""
    gain_offset: float
    """Added to the stored norm weight: 1.0 where the model computes ``1 + w`` (Gemma)."""
    attention_out: str
    """W_O, stored ``[d_model, n_heads * d_head]``, or input-major (transposed) where ``input_major``."""
    mlp_out: str
    mlp_norm: str
    """The norm in front of the MLP (transcoders read behind it)."""
    attention: AttentionLayout
    input_major: bool = False
    post_attention_norm: str | None = None
    """A norm after attention, whose gain scales what the heads write (Gemma-2)."""
    post_mlp_norm: str | None = None
    embedding_scale: str = "one"
    """``one`` or ``sqrt_d_model``."""
    default_d_head: int | None = None
    """``head_dim`` where the config does not say; None is ``d_model / n_heads``."""
    parallel: bool = False
    """Attention and MLP of a layer read the same stream."""
    key_d_model: str = "hidden_size"
    key_n_layers: str = "num_hidden_layers"
    key_n_heads: str = "num_attention_heads"
    key_d_mlp: str = "intermediate_size"


_LLAMA = {
    "prefixes": ("model.", ""),
    "embedding": "embed_tokens.weight",
    "final_norm": "norm.weight",
    "unembedding": "lm_head.weight",
    "norm": "rms",
    "attention_out": "layers.{l}.self_attn.o_proj.weight",
    "mlp_out": "layers.{l}.mlp.down_proj.weight",
    "mlp_norm": "layers.{l}.post_attention_layernorm.weight",
    "attention": AttentionLayout(),
}

ARCHITECTURES: dict[str, Architecture] = {
    arch.model_type: arch
    for arch in (
        Architecture(
            model_type="gpt2",
            prefixes=("transformer.", ""),
            embedding="wte.weight",
            final_norm="ln_f.weight",
            unembedding="lm_head.weight",
            tied_default=True,
            norm="layer",
            gain_offset=0.0,
            attention_out="h.{l}.attn.c_proj.weight",
            mlp_out="h.{l}.mlp.c_proj.weight",
            mlp_norm="h.{l}.ln_2.weight",
            attention=AttentionLayout(
                norm="h.{l}.ln_1.weight",
                query=None,
                key=None,
                value=None,
                fused="h.{l}.attn.c_attn.weight",
                scale="gpt2",
                n_kv_heads=None,
                rope="none",
            ),
            input_major=True,
            key_d_model="n_embd",
            key_n_layers="n_layer",
            key_n_heads="n_head",
            key_d_mlp="n_inner",
        ),
        Architecture(
            model_type="gpt_neox",
            prefixes=("gpt_neox.", ""),
            embedding="embed_in.weight",
            final_norm="final_layer_norm.weight",
            unembedding="embed_out.weight",
            tied_default=False,
            norm="layer",
            gain_offset=0.0,
            attention_out="layers.{l}.attention.dense.weight",
            mlp_out="layers.{l}.mlp.dense_4h_to_h.weight",
            mlp_norm="layers.{l}.post_attention_layernorm.weight",
            attention=AttentionLayout(
                query=None,
                key=None,
                value=None,
                fused="layers.{l}.attention.query_key_value.weight",
                fused_order="heads",
                n_kv_heads=None,
                rope_theta="rotary_emb_base",
                rope_share="rotary_pct",
                rope_share_default=0.25,
            ),
            parallel=True,
        ),
        Architecture(model_type="llama", tied_default=False, gain_offset=0.0, **_LLAMA),  # type: ignore[arg-type]
        Architecture(
            model_type="mistral",
            tied_default=False,
            gain_offset=0.0,
            **{**_LLAMA, "attention": AttentionLayout(n_kv_default=8, windows="all", window_default=4096)},  # type: ignore[arg-type]
        ),
        Architecture(
            model_type="qwen2",
            tied_default=False,
            gain_offset=0.0,
            **{**_LLAMA, "attention": AttentionLayout(windows="qwen", window_default=4096)},  # type: ignore[arg-type]
        ),
        Architecture(
            model_type="gemma",
            tied_default=True,
            gain_offset=1.0,
            embedding_scale="sqrt_d_model",
            default_d_head=256,
            **{**_LLAMA, "attention": AttentionLayout(n_kv_default=16)},  # type: ignore[arg-type]
        ),
        Architecture(
            model_type="gemma2",
            tied_default=True,
            gain_offset=1.0,
            embedding_scale="sqrt_d_model",
            default_d_head=256,
            post_attention_norm="layers.{l}.post_attention_layernorm.weight",
            post_mlp_norm="layers.{l}.post_feedforward_layernorm.weight",
            **{  # type: ignore[arg-type]
                **_LLAMA,
                "mlp_norm": "layers.{l}.pre_feedforward_layernorm.weight",
                "attention": AttentionLayout(
                    scale="query_pre_attn_scalar",
                    softcap="attn_logit_softcapping",
                    softcap_default=50.0,
                    n_kv_default=4,
                    windows="even",
                    window_default=4096,
                ),
            },
        ),
    )
}


def architecture_of(config: dict[str, Any], where: str) -> Architecture:
    """The table's row for a config.

    Args:
        config: the parsed ``config.json``.
        where: the file, for the error.

    Raises:
        WeightsError: no ``model_type``, or one that the table does not know.
    """
    kind = config.get("model_type")
    if not isinstance(kind, str):
        raise WeightsError(f"{where}: no model_type", "a Hugging Face config.json with a model_type")
    if kind not in ARCHITECTURES:
        raise WeightsError(
            f"{where}: model_type {kind!r} is not supported",
            "one of " + ", ".join(sorted(ARCHITECTURES)),
            "its norms and layouts are unknown here, and wbtui does not guess",
        )
    return ARCHITECTURES[kind]


@dataclass(frozen=True)
class Dimensions:
    """The sizes of a model, from its config."""

    d_model: int
    n_layers: int
    n_heads: int
    d_head: int
    d_mlp: int
    d_vocab: int
    tied: bool


def dimensions(config: dict[str, Any], where: str) -> Dimensions:
    """Sizes out of a config, each checked to be a sane positive integer.

    Raises:
        WeightsError: a field is missing or absurd.
    """
    arch = architecture_of(config, where)

    def integer(key: str, default: int | None = None) -> int:
        value = config.get(key)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= 10_000_000:
            raise WeightsError(f"{where}: {key} is {value!r}", "a positive whole number")
        return value

    d_model = integer(arch.key_d_model)
    n_layers = integer(arch.key_n_layers)
    if n_layers > 10_000:
        raise WeightsError(f"{where}: {arch.key_n_layers} is {n_layers}", "at most 10,000 layers")
    n_heads = integer(arch.key_n_heads)
    return Dimensions(
        d_model=d_model,
        n_layers=n_layers,
        n_heads=n_heads,
        d_head=integer("head_dim", arch.default_d_head or max(1, d_model // n_heads)),
        d_mlp=integer(arch.key_d_mlp, 4 * d_model if arch.key_d_mlp == "n_inner" else None),
        d_vocab=integer("vocab_size"),
        tied=bool(config.get("tie_word_embeddings", arch.tied_default)),
    )


def embedding_multiplier(arch: Architecture, d_model: int) -> float:
    """alpha of methods 0: what the model multiplies token embeddings by (in float32; bf16 checkpoints round it)."""
    return math.sqrt(d_model) if arch.embedding_scale == "sqrt_d_model" else 1.0
