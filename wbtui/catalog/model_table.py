"""One table: model type -> tensor names, layouts, norms, scales, and what the type's config class fills in.

Facts: methods 3.1, 3.3, 3.4, each held against the forward pass of transformers by the tests. Tensor names are those
that transformers saves.
"""

from __future__ import annotations

from typing import Any

from wbtui.catalog.layouts import Architecture, AttentionLayout

_LLAMA: dict[str, Any] = {
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
_HEAD_NORMS: dict[str, Any] = {
    "query_norm": "layers.{l}.self_attn.q_norm.weight",
    "key_norm": "layers.{l}.self_attn.k_norm.weight",
    "qk_norm": "head",
}
_POST_NORMS: dict[str, Any] = {
    "post_attention_norm": "layers.{l}.post_attention_layernorm.weight",
    "post_mlp_norm": "layers.{l}.post_feedforward_layernorm.weight",
}
_CAUSAL: dict[str, tuple[Any, ...]] = {"use_bidirectional_attention": (None, False)}
_GEMMA: dict[str, Any] = {"gain_offset": 1.0, "embedding_scale": "sqrt_d_model", "must": _CAUSAL}
_WRAPPED = ("model.language_model.", "language_model.model.", "language_model.", "model.", "")


def _defaults(
    d_model: int, layers: int, heads: int, kv: int | None, d_mlp: int, vocab: int, **more: Any
) -> dict[str, Any]:
    """A class's sizes and switches, as transformers has them."""
    out: dict[str, Any] = {
        "hidden_size": d_model,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": d_mlp,
        "vocab_size": vocab,
        "tie_word_embeddings": False,
        "rms_norm_eps": 1e-6,
    }
    return out | ({} if kv is None else {"num_key_value_heads": kv}) | more


_GEMMA3: dict[str, Any] = {
    **_LLAMA,
    **_GEMMA,
    **_POST_NORMS,
    "mlp_norm": "layers.{l}.pre_feedforward_layernorm.weight",
    "attention": AttentionLayout(
        **_HEAD_NORMS,
        scale="query_pre_attn_scalar",
        rope_theta_default=1_000_000.0,
        rope_local_theta="rope_local_base_freq",
        layers="pattern",
    ),
    "defaults": _defaults(
        2304, 26, 8, 4, 9216, 262_208,
        head_dim=256, tie_word_embeddings=True, query_pre_attn_scalar=256, sliding_window=4096,
        max_position_embeddings=131_072,
    ),
}  # fmt: skip
_QWEN35: dict[str, Any] = {
    **_LLAMA,
    "gain_offset": 1.0,
    "attention": AttentionLayout(
        **_HEAD_NORMS, gated=True, rope_share="partial_rotary_factor", rope_share_default=0.25, layers="linear"
    ),
    "defaults": _defaults(4096, 32, 16, 4, 12_288, 248_320, head_dim=256, max_position_embeddings=32_768),
    "must": {"attn_output_gate": (None, True)},
}
_NEOX = AttentionLayout(
    query=None,
    key=None,
    value=None,
    fused="layers.{l}.attention.query_key_value.weight",
    fused_order="heads",
    n_kv_heads=None,
    rope_theta="rotary_emb_base",
    rope_share="rotary_pct",
    rope_share_default=0.25,
)

_ROWS = (
    Architecture(
        model_type="gpt2",
        family="GPT-2",
        prefixes=("transformer.", ""),
        embedding="wte.weight",
        final_norm="ln_f.weight",
        unembedding="lm_head.weight",
        norm="layer",
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
        defaults={
            "n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50_257, "tie_word_embeddings": True,
            "layer_norm_epsilon": 1e-5,
        },
        must={"add_cross_attention": (None, False)},
        input_major=True,
        norm_eps="layer_norm_epsilon",
        key_d_model="n_embd",
        key_n_layers="n_layer",
        key_n_heads="n_head",
        key_d_mlp="n_inner",
    ),
    Architecture(
        model_type="gpt_neox",
        family="Pythia, GPT-NeoX",
        prefixes=("gpt_neox.", ""),
        embedding="embed_in.weight",
        final_norm="final_layer_norm.weight",
        unembedding="embed_out.weight",
        norm="layer",
        attention_out="layers.{l}.attention.dense.weight",
        mlp_out="layers.{l}.mlp.dense_4h_to_h.weight",
        mlp_norm="layers.{l}.post_attention_layernorm.weight",
        attention=_NEOX,
        defaults={
            "hidden_size": 6144, "num_hidden_layers": 44, "num_attention_heads": 64, "intermediate_size": 24_576,
            "vocab_size": 50_432, "tie_word_embeddings": False, "layer_norm_eps": 1e-5,
            "max_position_embeddings": 2048,
        },
        norm_eps="layer_norm_eps",
        parallel=True,
    ),
    Architecture(
        model_type="llama",
        family="Llama 1–3",
        **_LLAMA,
        defaults=_defaults(4096, 32, 32, None, 11_008, 32_000, max_position_embeddings=2048),
    ),
    Architecture(
        model_type="mistral",
        family="Mistral 7B",
        **_LLAMA | {"attention": AttentionLayout(layers="local")},
        defaults=_defaults(4096, 32, 32, 8, 14_336, 32_000, sliding_window=4096, max_position_embeddings=131_072),
    ),
    Architecture(
        model_type="qwen2",
        family="Qwen2, Qwen2.5",
        **_LLAMA | {"attention": AttentionLayout(layers="qwen")},
        defaults=_defaults(
            4096, 32, 32, 32, 22_016, 151_936,
            sliding_window=4096, max_window_layers=28, max_position_embeddings=32_768,
        ),
    ),
    Architecture(
        model_type="qwen3",
        family="Qwen3",
        **_LLAMA | {"attention": AttentionLayout(**_HEAD_NORMS, layers="qwen")},
        defaults=_defaults(
            4096, 32, 32, 32, 22_016, 151_936,
            head_dim=128, sliding_window=4096, max_window_layers=28, max_position_embeddings=32_768,
        ),
    ),
    Architecture(
        model_type="qwen3_moe",
        family="Qwen3 mixtures of experts",
        **_LLAMA | {"attention": AttentionLayout(**_HEAD_NORMS, layers="qwen_local")},
        defaults=_defaults(
            2048, 24, 32, 4, 6144, 151_936, sliding_window=4096, max_position_embeddings=32_768
        ),
        experts=True,
    ),
    Architecture(
        model_type="gemma",
        family="Gemma",
        **_LLAMA | _GEMMA,
        defaults=_defaults(
            3072, 28, 16, 16, 24_576, 256_000, head_dim=256, tie_word_embeddings=True, max_position_embeddings=8192
        ),
    ),
    Architecture(
        model_type="gemma2",
        family="Gemma 2",
        **_LLAMA
        | _GEMMA
        | _POST_NORMS
        | {
            "mlp_norm": "layers.{l}.pre_feedforward_layernorm.weight",
            "attention": AttentionLayout(
                scale="query_pre_attn_scalar", softcap="attn_logit_softcapping", layers="even"
            ),
        },
        defaults=_defaults(
            2304, 26, 8, 4, 9216, 256_000,
            head_dim=256, tie_word_embeddings=True, query_pre_attn_scalar=256, attn_logit_softcapping=50.0,
            final_logit_softcapping=30.0, sliding_window=4096, max_position_embeddings=8192,
        ),
        final_softcap="final_logit_softcapping",
    ),
    Architecture(
        model_type="gemma3_text",
        family="Gemma 3 (270M, 1B)",
        **_GEMMA3,
        final_softcap="final_logit_softcapping",
    ),
    Architecture(
        model_type="gemma3",
        family="Gemma 3 (4B and larger, with vision)",
        **_GEMMA3 | {"prefixes": _WRAPPED},
        text_configs=("gemma3_text",),
    ),
    Architecture(
        model_type="olmo2",
        family="OLMo 2",
        **_LLAMA
        | _POST_NORMS
        | {
            "mlp_norm": None,
            "attention": AttentionLayout(norm=None, **_HEAD_NORMS | {"qk_norm": "all"}),
        },
        defaults=_defaults(
            4096, 32, 32, None, 11_008, 50_304, rms_norm_eps=1e-5, max_position_embeddings=2048
        ),
    ),
    Architecture(
        model_type="phi",
        family="Phi-1, Phi-1.5, Phi-2",
        **_LLAMA
        | {
            "final_norm": "final_layernorm.weight",
            "norm": "layer",
            "attention_out": "layers.{l}.self_attn.dense.weight",
            "mlp_out": "layers.{l}.mlp.fc2.weight",
            "mlp_norm": "layers.{l}.input_layernorm.weight",
            "attention": AttentionLayout(
                query_norm="layers.{l}.self_attn.q_layernorm.weight",
                key_norm="layers.{l}.self_attn.k_layernorm.weight",
                qk_norm="layer",
                qk_norm_switch="qk_layernorm",
                rope_share="partial_rotary_factor",
                rope_share_default=0.5,
            ),
        },
        defaults={
            "hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 32, "intermediate_size": 8192,
            "vocab_size": 51_200, "tie_word_embeddings": False, "layer_norm_eps": 1e-5, "qk_layernorm": False,
            "max_position_embeddings": 2048,
        },
        norm_eps="layer_norm_eps",
        parallel=True,
    ),
    Architecture(
        model_type="phi3",
        family="Phi-3, Phi-4",
        **_LLAMA
        | {
            "attention": AttentionLayout(
                query=None,
                key=None,
                value=None,
                fused="layers.{l}.self_attn.qkv_proj.weight",
                rope_share="partial_rotary_factor",
                rope_renamed={"su": "longrope", "yarn": "longrope"},
                layers="local",
            )
        },
        defaults=_defaults(
            3072, 32, 32, None, 8192, 32_064,
            rms_norm_eps=1e-5, max_position_embeddings=4096, original_max_position_embeddings=4096,
        ),
    ),
    Architecture(
        model_type="gpt_oss",
        family="gpt-oss",
        **_LLAMA
        | {
            "attention": AttentionLayout(
                sinks="layers.{l}.self_attn.sinks", rope_theta_default=150_000.0, layers="even"
            )
        },
        defaults=_defaults(
            2880, 36, 64, 8, 2880, 201_088,
            head_dim=64, rms_norm_eps=1e-5, sliding_window=128, max_position_embeddings=131_072,
            rope_parameters={
                "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
                "original_max_position_embeddings": 4096,
            },
        ),
        experts=True,
    ),
    Architecture(model_type="qwen3_5_text", family="Qwen3.5 (text only)", **_QWEN35),
    Architecture(
        model_type="qwen3_5",
        family="Qwen3.5",
        **_QWEN35 | {"prefixes": _WRAPPED},
        text_configs=("qwen3_5_text", "qwen3_5"),
    ),
)  # fmt: skip

ARCHITECTURES: dict[str, Architecture] = {arch.model_type: arch for arch in _ROWS}
