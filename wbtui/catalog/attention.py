"""What a config says about attention: layouts of the projections, score scale, softcap, RoPE, windows. Stdlib only.

:class:`AttentionLayout` is a row's attention part in :mod:`wbtui.catalog.architectures`; :func:`attention_facts` joins
it with a model's own config, in either of the styles that configs come in: ``rope_parameters`` (transformers 5, flat or
nested per layer type) and ``rope_theta`` with ``rope_scaling``. Facts: methods 3.4.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from wbtui.errors import WeightsError

ROPE_TYPES = ("default", "linear", "llama3")


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
    query_norm: str | None = None
    key_norm: str | None = None
    """Weights of q/k norms, where there are any."""
    qk_norm: str = "none"
    """``none``, ``head`` (RMS over each head's width), ``all`` (RMS over all heads together, OLMo-2)."""
    scale: str = "d_head"
    """``d_head`` (its -1/2 power), ``query_pre_attn_scalar``, or ``gpt2`` (with that type's two switches)."""
    softcap: str | None = None
    """The config's key for the score softcap."""
    softcap_default: float | None = None
    n_kv_heads: str | None = "num_key_value_heads"
    n_kv_default: int | None = None
    """Key/value heads where the config lacks the key; None, or a null in the config, is as many as query heads."""
    rope: str = "half"
    """``half`` (dim m turns with m + r/2), ``none`` (learned positions)."""
    rope_theta: str = "rope_theta"
    rope_share: str = "partial_rotary_factor"
    rope_share_default: float = 1.0
    windows: str = "none"
    """Local layers where no ``layer_types`` say: ``none``, ``all``, ``even``, ``qwen`` (``use_sliding_window``)."""
    window_default: int | None = None


@dataclass(frozen=True)
class RopeFacts:
    """One layer's rotary embedding."""

    theta: float
    share: float
    """Share of the head's width that turns, from its front."""
    kind: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_length: int = 0


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

    def to_json(self) -> dict[str, Any]:
        """Plain data, as it stands in a product's identity."""
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> AttentionFacts:
        """The inverse of :meth:`to_json`."""
        data = dict(data)
        if data.get("rope") is not None:
            data["rope"] = RopeFacts(**data["rope"])
        return AttentionFacts(**data)


def attention_facts(
    config: dict[str, Any], layout: AttentionLayout, n_heads: int, d_head: int, layer: int, where: str
) -> AttentionFacts:
    """One layer's attention, from the table's row and the config.

    Args:
        config: the parsed ``config.json``.
        layout: the model type's row.
        n_heads, d_head: from :func:`wbtui.catalog.architectures.dimensions`.
        layer: the layer; some models alternate windows and rotary bases.
        where: the config's file, for errors.

    Raises:
        WeightsError: a field that is not a sane number, or a rotary embedding that is not known here.
    """
    n_kv = n_heads
    if layout.n_kv_heads is not None and config.get(layout.n_kv_heads, layout.n_kv_default) is not None:
        n_kv = int(_number(config, layout.n_kv_heads, layout.n_kv_default, where))
    if n_kv < 1 or n_heads % n_kv:
        raise WeightsError(f"{where}: {n_heads} heads over {n_kv} key/value heads", "a whole number of heads for each")
    softcap = None
    if layout.softcap is not None:
        softcap = config.get(layout.softcap, layout.softcap_default)
        if softcap is not None:
            softcap = _number(config, layout.softcap, layout.softcap_default, where)
    return AttentionFacts(
        n_heads=n_heads,
        n_kv_heads=n_kv,
        d_head=d_head,
        scale=_scale(config, layout, d_head, layer, where),
        softcap=softcap,
        rope=None if layout.rope == "none" else _rope(config, layout, layer, where),
        window=_window(config, layout, layer, where),
    )


def _number(config: dict[str, Any], key: str, default: float | None, where: str) -> float:
    value = config.get(key)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e12:
        raise WeightsError(f"{where}: {key} is {value!r}", "a positive number")
    return value


def _scale(config: dict[str, Any], layout: AttentionLayout, d_head: int, layer: int, where: str) -> float:
    if layout.scale == "query_pre_attn_scalar":
        return float(_number(config, "query_pre_attn_scalar", 256, where)) ** -0.5
    scale = d_head**-0.5
    if layout.scale == "gpt2":
        scale = scale if config.get("scale_attn_weights", True) else 1.0
        if config.get("scale_attn_by_inverse_layer_idx", False):
            scale /= layer + 1
    return scale


def _layer_type(config: dict[str, Any], layer: int, where: str) -> str | None:
    types = config.get("layer_types")
    if types is None:
        return None
    if not isinstance(types, list) or layer >= len(types):
        raise WeightsError(f"{where}: layer_types {types!r}", f"a list with an entry for layer {layer}")
    return str(types[layer])


def _rope(config: dict[str, Any], layout: AttentionLayout, layer: int, where: str) -> RopeFacts:
    given = config.get("rope_parameters")
    if isinstance(given, dict) and given and all(isinstance(v, dict) or v is None for v in given.values()):
        kind = _layer_type(config, layer, where)
        if kind not in given:
            raise WeightsError(f"{where}: rope_parameters for {sorted(given)}", f"an entry for layer type {kind!r}")
        given = given[kind]
    # a config may carry both styles: transformers lets rope_scaling win over rope_parameters
    given = config.get("rope_scaling") or given or {}
    if not isinstance(given, dict):
        raise WeightsError(f"{where}: rotary parameters {given!r}", "a JSON object")
    kind = given.get("rope_type", given.get("type", "default"))
    if kind not in ROPE_TYPES:
        raise WeightsError(
            f"{where}: rope_type {kind!r}",
            "one of " + ", ".join(ROPE_TYPES),
            "its scores would carry factors that wbtui does not know",
        )

    def field(key: str, default: float) -> float:
        return float(_number(given, key, default, where))

    theta = field("rope_theta", _number(config, layout.rope_theta, 10_000.0, where))
    share = field("partial_rotary_factor", _number(config, layout.rope_share, layout.rope_share_default, where))
    if kind == "default":
        return RopeFacts(theta, share)
    if "factor" not in given:
        raise WeightsError(f"{where}: rope_type {kind!r} without a factor", "its factor")
    if kind == "linear":
        return RopeFacts(theta, share, kind, field("factor", 1.0))
    length = config.get("original_max_position_embeddings") or given.get("original_max_position_embeddings")
    length = _number({"length": length or config.get("max_position_embeddings")}, "length", None, where)
    low, high = field("low_freq_factor", 1.0), field("high_freq_factor", 4.0)
    if not low < high:
        raise WeightsError(f"{where}: low_freq_factor {low}, high_freq_factor {high}", "low below high")
    return RopeFacts(theta, share, kind, field("factor", 1.0), low, high, int(length))


def _window(config: dict[str, Any], layout: AttentionLayout, layer: int, where: str) -> int | None:
    width = config.get("sliding_window", layout.window_default)
    if width is None or layout.windows == "none":
        return None
    if layout.windows == "qwen" and not config.get("use_sliding_window", False):
        return None
    kind = _layer_type(config, layer, where)
    if layout.windows == "all":
        local = True
    elif kind is not None:
        local = kind == "sliding_attention"
    elif layout.windows == "even":
        local = layer % 2 == 0
    else:
        local = layer >= config.get("max_window_layers", 28)
    return int(_number({"sliding_window": width}, "sliding_window", None, where)) if local else None


def rotary_frequencies(rope: RopeFacts, d_head: int) -> list[float]:
    """The angle per position of each turning pair, in pair order: ``r/2`` numbers, ``r = d_head * share`` rounded down.

    ``llama3`` (methods 3.4): wavelengths below ``original / high`` stay, those above ``original / low`` are divided by
    the factor, between them a blend that is linear in ``original / wavelength``.
    """
    dim = int(d_head * rope.share)
    out = []
    for m in range(0, dim, 2):
        angle = rope.theta ** (-m / dim)
        if rope.kind == "linear":
            angle /= rope.factor
        elif rope.kind == "llama3":
            turns = rope.original_length * angle / (2 * math.pi)
            if turns < rope.low_freq_factor:
                angle /= rope.factor
            elif turns <= rope.high_freq_factor:
                blend = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
                angle = (1 - blend) * angle / rope.factor + blend * angle
        out.append(angle)
    return out
