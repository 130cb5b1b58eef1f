"""The README's table of models, out of the table of architectures (``tools/readme_tables.py`` writes it)."""

from __future__ import annotations

from wbtui.catalog.layouts import Architecture
from wbtui.catalog.model_table import ARCHITECTURES

_SCALES = {
    "d_head": "",
    "query_pre_attn_scalar": "score scale from `query_pre_attn_scalar`",
    "gpt2": "",
}
_QK = {
    "none": "",
    "head": "q/k norms per head",
    "layer": "q/k LayerNorms per head",
    "all": "q/k norms over all heads together",
}
_LAYERS = {
    "full": "",
    "local": "sliding window",
    "even": "even layers local",
    "pattern": "local and global layers with RoPE bases of their own",
    "qwen": "",
    "qwen_local": "",
    "linear": "linear-attention layers have no heads",
}


def table() -> str:
    """Markdown: a row for each model type, with what is particular to it."""
    lines = ["| `model_type` | models | norm | what is honoured |", "|---|---|---|---|"]
    for arch in ARCHITECTURES.values():
        lines.append(f"| {arch.model_type} | {arch.family} | {_norm(arch)} | {'; '.join(_notes(arch)) or '–'} |")
    return "\n".join(lines)


def _norm(arch: Architecture) -> str:
    if arch.norm == "layer":
        return "LayerNorm"
    return "RMSNorm, 1 + w" if arch.gain_offset else "RMSNorm"


def _notes(arch: Architecture) -> list[str]:
    at = arch.attention
    optional = f" (with `{at.qk_norm_switch}`)" if at.qk_norm_switch else ""
    notes = [
        "the language model of a wrapper (`text_config`)" if arch.text_configs else "",
        "learned positions" if at.rope == "none" else "",
        "part of each head turns" if at.rope_share else "",
        {"heads": "fused q, k, v by head", "blocks": "fused q, k, v"}[at.fused_order] if at.fused else "",
        "input-major weights" if arch.input_major else "",
        "no norm in front of attention" if at.norm is None else "",
        _QK[at.qk_norm] + optional if at.qk_norm != "none" else "",
        "norms behind attention and MLP" if arch.post_attention_norm else "",
        _SCALES[at.scale],
        "softcap on scores" if at.softcap else "",
        "attention sinks" if at.sinks else "",
        "gated heads (OV per unit of the gate)" if at.gated else "",
        _LAYERS[at.layers],
        "embedding × √d_model" if arch.embedding_scale == "sqrt_d_model" else "",
        "attention and MLP side by side" if arch.parallel else "",
        "mixtures of experts (no SAEs on their neurons)" if arch.experts else "",
    ]
    return [note for note in notes if note]
