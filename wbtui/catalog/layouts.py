"""What the table of architectures says about one model type: tensor names, layouts, norms, switches. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class AttentionLayout:
    """How one model type stores and computes attention. ``{l}`` stands for the layer; biases end in ``.bias``."""

    norm: str | None = "layers.{l}.input_layernorm.weight"
    """The norm in front of attention; None where the stream is read as it is (OLMo-2)."""
    query: str | None = "layers.{l}.self_attn.q_proj.weight"
    key: str | None = "layers.{l}.self_attn.k_proj.weight"
    value: str | None = "layers.{l}.self_attn.v_proj.weight"
    fused: str | None = None
    """One tensor in place of the three; its order is ``fused_order``."""
    fused_order: str = "blocks"
    """``blocks``: all q, all k, all v; ``heads``: per head q, k, v (NeoX)."""
    gated: bool = False
    """The query tensor holds, per head, the query and then a gate of equal width (Qwen3.5)."""
    sinks: str | None = None
    """One learned logit per head that joins each softmax and carries no value (gpt-oss)."""
    query_norm: str | None = None
    key_norm: str | None = None
    """Weights of q/k norms, where there are any."""
    qk_norm: str = "none"
    """``none``; ``head``: RMS over each head's width; ``layer``: LayerNorm over it; ``all``: RMS over all heads
    together (OLMo-2)."""
    qk_norm_switch: str | None = None
    """The config's boolean that turns the q/k norms on; None where they are always there."""
    scale: str = "d_head"
    """``d_head`` (its -1/2 power), ``query_pre_attn_scalar``, or ``gpt2`` (with that type's two switches)."""
    softcap: str | None = None
    """The config's key for the score softcap."""
    n_kv_heads: str | None = "num_key_value_heads"
    """A config without it, or with a null there, has as many as query heads."""
    rope: str = "half"
    """``half`` (dim m turns with m + r/2), ``none`` (learned positions)."""
    rope_theta: str = "rope_theta"
    rope_theta_default: float = 10_000.0
    rope_local_theta: str | None = None
    """The base of local layers, where they have their own (Gemma-3); scalings are then of the global layers alone."""
    rope_share: str | None = None
    """The config's key for the share of each head that turns; None: all of it, always."""
    rope_share_default: float = 1.0
    rope_renamed: Mapping[str, str] = field(default_factory=dict)
    """Rope types that the model type understands as another (Phi-3)."""
    layers: str = "full"
    """Kinds of layers where no ``layer_types`` say: ``full``; ``local`` (all); ``even`` (even ones local); ``pattern``
    (every ``sliding_window_pattern``-th full); ``qwen`` (local from ``max_window_layers`` on, with
    ``use_sliding_window``); ``qwen_local`` (all local with that switch); ``linear`` (every
    ``full_attention_interval``-th full, the others linear, without heads). ``full``, ``local`` and ``qwen_local``
    hold whatever the config's ``layer_types``."""


@dataclass(frozen=True)
class Architecture:
    """How one model type stores what out-of-context analysis needs. ``{l}`` stands for the layer."""

    model_type: str
    family: str
    """Models of this type, as people name them."""
    prefixes: tuple[str, ...]
    """Module prefixes that a checkpoint's tensors may carry (a headless model saves without them)."""
    embedding: str
    final_norm: str
    unembedding: str
    """Name of the untied unembedding, without a prefix."""
    norm: str
    """``rms`` or ``layer`` (mean-centring, with a bias)."""
    attention_out: str
    """W_O, stored ``[d_model, n_heads * d_head]``, or input-major (transposed) where ``input_major``."""
    mlp_out: str
    mlp_norm: str | None
    """The norm in front of the MLP (transcoders read behind it); None where the stream is read as it is (OLMo-2)."""
    attention: AttentionLayout
    defaults: Mapping[str, Any]
    """Config fields that the model's class fills in where a file lacks them."""
    gain_offset: float = 0.0
    """Added to the stored norm weight: 1.0 where the model computes ``1 + w`` (Gemma, Qwen3.5)."""
    input_major: bool = False
    post_attention_norm: str | None = None
    """A norm after attention, whose gain scales what the heads write (Gemma-2)."""
    post_mlp_norm: str | None = None
    embedding_scale: str = "one"
    """``one`` or ``sqrt_d_model``."""
    parallel: bool = False
    """Attention and MLP of a layer read the same stream."""
    experts: bool = False
    """The MLPs are mixtures of experts: no one matrix leads from neurons to the stream."""
    text_configs: tuple[str, ...] = ()
    """A wrapper around several models: the model types that its ``text_config`` may have."""
    must: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Config fields whose other values would make another model; a file that lacks the field is fine."""
    final_softcap: str | None = None
    """The config's key for the cap on logits."""
    norm_eps: str = "rms_norm_eps"
    key_d_model: str = "hidden_size"
    key_n_layers: str = "num_hidden_layers"
    key_n_heads: str = "num_attention_heads"
    key_d_mlp: str = "intermediate_size"
