"""What a config says about attention: layouts of the projections, score scale, softcap, RoPE, windows. Stdlib only.

:class:`AttentionLayout` is a row's attention part in :mod:`wbtui.catalog.model_table`; :func:`attention_facts` joins
it with a model's own config. Facts: methods 3.4.
"""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, dataclass
from typing import Any

from wbtui.catalog.layouts import AttentionLayout
from wbtui.catalog.rope import RopeFacts, number, rope_facts, rotary_frequencies, whole
from wbtui.errors import UsageError, WeightsError

__all__ = ["AttentionFacts", "AttentionLayout", "RopeFacts", "attention_facts", "headless_layers", "rotary_frequencies"]

LAYER_KINDS = ("full_attention", "sliding_attention", "linear_attention")
_LATER: dict[str, Any] = {"rotary_gain": 1.0, "rotary_dims": 0, "qk_norm": "none", "sinks": False, "gated": False}
"""Facts that the first model types have not, with what they mean there: left out, so that products keep their keys."""


@dataclass(frozen=True)
class AttentionFacts:
    """Everything that the numbers of one layer's heads take from the config."""

    n_heads: int
    n_kv_heads: int
    d_head: int
    scale: float
    """The score multiplier s_att."""
    softcap: float | None
    rope: RopeFacts | None
    window: int | None
    """Keys that a query can see, itself among them; None for all."""
    rotary_gain: float = 1.0
    """What the turning part of every score is multiplied by: YaRN's and LongRoPE's factor, squared."""
    rotary_dims: int = 0
    """The head's front dims that ``rotary_gain`` acts on."""
    qk_norm: str = "none"
    """``none``, ``head``, ``layer`` or ``all``, as in :class:`AttentionLayout`."""
    sinks: bool = False
    """A learned logit joins each softmax."""
    gated: bool = False
    """The head's output is multiplied by a gate that the query's token sets."""

    def to_json(self) -> dict[str, Any]:
        """Plain data, as it stands in a product's identity."""
        out = asdict(self) | {"rope": None if self.rope is None else self.rope.to_json()}
        return {k: v for k, v in out.items() if k not in _LATER or v != _LATER[k]}

    @staticmethod
    def from_json(data: dict[str, Any]) -> AttentionFacts:
        """The inverse of :meth:`to_json`."""
        data = dict(data)
        if data.get("rope") is not None:
            data["rope"] = RopeFacts.from_json(data["rope"])
        return AttentionFacts(**data)

    @property
    def marks(self) -> str:
        """:attr:`words` in a few letters, for narrow screens."""
        marks = {"q/k norms": self.qk_norm != "none", "sink": self.sinks, "gated": self.gated}
        return ", ".join(mark for mark, there in marks.items() if there)

    @property
    def words(self) -> tuple[str, ...]:
        """What a reader must know about these heads' numbers, in words; empty for plain heads."""
        out = []
        if self.qk_norm != "none":
            out.append("per-feature normalised (q/k norms)")
        if self.qk_norm == "all":
            out.append("normalised over all heads together")
        if self.sinks:
            out.append("a sink joins each softmax: attention sums below 1")
        if self.gated:
            out.append("OV per unit of the head's gate")
        return tuple(out)


def active_layout(config: dict[str, Any], layout: AttentionLayout) -> AttentionLayout:
    """The row's layout without the q/k norms that this config switches off."""
    if layout.qk_norm_switch is None or config.get(layout.qk_norm_switch, False):
        return layout
    return dataclasses.replace(layout, qk_norm="none", query_norm=None, key_norm=None)


def attention_facts(
    config: dict[str, Any], layout: AttentionLayout, n_heads: int, d_head: int, layer: int, where: str
) -> AttentionFacts:
    """One layer's attention, from the table's row and the config.

    Args:
        config: an effective config.
        layout: the model type's row.
        n_heads, d_head: from :func:`wbtui.catalog.architectures.dimensions`.
        layer: the layer; some models alternate windows and rotary bases.
        where: the config's file, for errors.

    Raises:
        UsageError: a linear-attention layer, which has no heads.
        WeightsError: a field that is not a sane number, or a rotary embedding that is not known here.
    """
    layout = active_layout(config, layout)
    kind = layer_kind(config, layout, layer, where)
    if kind == "linear_attention":
        raise UsageError(f"layer {layer} has no heads: it mixes tokens by linear attention", "a full-attention layer")
    n_kv = n_heads
    if layout.n_kv_heads is not None and config.get(layout.n_kv_heads) is not None:
        n_kv = whole(config, layout.n_kv_heads, None, where)
    if n_kv < 1 or n_heads % n_kv:
        raise WeightsError(f"{where}: {n_heads} heads over {n_kv} key/value heads", "a whole number of heads for each")
    softcap = None
    if layout.softcap is not None and config.get(layout.softcap) is not None:
        softcap = number(config, layout.softcap, None, where)
    rope, scaling = None, 1.0
    if layout.rope != "none":
        rope, scaling = rope_facts(config, layout, kind, d_head, where)
    return AttentionFacts(
        n_heads=n_heads,
        n_kv_heads=n_kv,
        d_head=d_head,
        scale=_scale(config, layout, d_head, layer, where),
        softcap=softcap,
        rope=rope,
        window=_window(config, layout, kind, where),
        rotary_gain=scaling**2,
        rotary_dims=0 if rope is None or scaling == 1.0 else int(d_head * rope.share),
        qk_norm=layout.qk_norm,
        sinks=layout.sinks is not None,
        gated=layout.gated,
    )


def headless_layers(config: dict[str, Any], layout: AttentionLayout, n_layers: int, where: str) -> tuple[int, ...]:
    """The layers without heads (linear attention).

    Raises:
        WeightsError: ``layer_types`` that do not fit.
    """
    if layout.layers != "linear":
        return ()
    return tuple(i for i in range(n_layers) if layer_kind(config, layout, i, where) == "linear_attention")


def layer_kind(config: dict[str, Any], layout: AttentionLayout, layer: int, where: str) -> str:
    """One of ``LAYER_KINDS``: what the config says, or the model type's own pattern.

    Raises:
        WeightsError: no such entry, or a kind that is not known here.
    """
    rule, full, local = layout.layers, "full_attention", "sliding_attention"
    if rule in ("full", "local"):
        return full if rule == "full" else local
    if rule == "qwen_local":
        return local if config.get("use_sliding_window", False) else full
    types = config.get("layer_types")
    if types is not None:
        if not isinstance(types, list) or layer >= len(types):
            raise WeightsError(f"{where}: layer_types {str(types)[:80]}", f"a list with an entry for layer {layer}")
        kind = types[layer]
        if kind not in LAYER_KINDS or (kind == "linear_attention" and rule != "linear"):
            raise WeightsError(
                f"{where}: layer {layer} is of type {str(kind)[:80]!r}", "one of " + ", ".join(LAYER_KINDS)
            )
        return str(kind)
    if rule == "even":
        return local if layer % 2 == 0 else full
    if rule == "qwen":
        first = config.get("max_window_layers", 28)
        if isinstance(first, bool) or not isinstance(first, int):
            raise WeightsError(f"{where}: max_window_layers is {str(first)[:80]}", "a whole number")
        return local if config.get("use_sliding_window", False) and layer >= first else full
    key, default, other = {
        "pattern": ("sliding_window_pattern", 6, local),
        "linear": ("full_attention_interval", 4, "linear_attention"),
    }[rule]
    if config.get(key) is None and config.get("_" + key) is not None:
        key = "_" + key  # as transformers saves what is not a field of its class
    every = whole(config, key, default, where)
    return other if (layer + 1) % max(1, every) else full


def _scale(config: dict[str, Any], layout: AttentionLayout, d_head: int, layer: int, where: str) -> float:
    if layout.scale == "query_pre_attn_scalar":
        return float(number(config, "query_pre_attn_scalar", 256, where)) ** -0.5
    scale = d_head**-0.5
    if layout.scale == "gpt2":
        scale = scale if config.get("scale_attn_weights", True) else 1.0
        if config.get("scale_attn_by_inverse_layer_idx", False):
            scale /= layer + 1
    return scale


def _window(config: dict[str, Any], layout: AttentionLayout, kind: str, where: str) -> int | None:
    width = config.get("sliding_window")
    if width is None or kind != "sliding_attention":
        return None
    if layout.layers == "qwen" and not config.get("use_sliding_window", False):
        return None
    return whole({"sliding_window": width}, "sliding_window", None, where)
