"""Rotary embeddings as configs describe them, in either style, and the angles that they mean (methods 3.4).

Two styles: ``rope_parameters`` (transformers 5; flat, or nested per layer type) and ``rope_theta`` with
``rope_scaling``. A config may carry both; as in transformers, ``rope_scaling`` wins. YaRN and LongRoPE also multiply
the cosines and sines, so the turning part of every score carries that factor squared, at offset 0 too.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from wbtui.catalog.layouts import AttentionLayout
from wbtui.errors import WeightsError

ROPE_TYPES = ("default", "linear", "dynamic", "yarn", "longrope", "llama3")
_LENGTHS = {"yarn", "longrope", "llama3"}


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
    angles: tuple[float, ...] = ()
    """The angles per position of each pair, where theta and factor alone do not give them (YaRN, LongRoPE)."""
    reach: int | None = None
    """Positions within which the angles hold; beyond, the model takes others (LongRoPE, dynamic)."""

    def to_json(self) -> dict[str, Any]:
        """Plain data; fields that a kind does not use are left out."""
        out = asdict(self)
        return {k: v for k, v in out.items() if k not in ("angles", "reach") or v not in ((), None)}

    @staticmethod
    def from_json(data: dict[str, Any]) -> RopeFacts:
        """The inverse of :meth:`to_json`."""
        return RopeFacts(**{**data, "angles": tuple(data.get("angles", ()))})


def number(config: dict[str, Any], key: str, default: float | None, where: str) -> float:
    """A positive number of a config; ``default`` stands for a missing one and for null.

    Raises:
        WeightsError: not a sane positive number.
    """
    value = config.get(key)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e12:
        raise WeightsError(f"{where}: {key} is {str(value)[:80]}", "a positive number")
    return value


def whole(config: dict[str, Any], key: str, default: float | None, where: str) -> int:
    """A whole number of at least 1, as :func:`number`; a float without a fraction is one.

    Raises:
        WeightsError: not one.
    """
    value = number(config, key, default, where)
    if value != int(value):
        raise WeightsError(f"{where}: {key} is {value}", "a whole number")
    return int(value)


def rope_facts(
    config: dict[str, Any], layout: AttentionLayout, kind: str, d_head: int, where: str
) -> tuple[RopeFacts, float]:
    """The rotary embedding of layers of one kind.

    Args:
        config: an effective config.
        layout: the model type's row.
        kind: the layer's kind, ``full_attention`` or ``sliding_attention``.
        d_head: the head's width.
        where: the config's file, for errors.

    Returns:
        the facts, and what cosines and sines are multiplied by (1 unless YaRN or LongRoPE say otherwise).

    Raises:
        WeightsError: fields that are no sane numbers, or a rotary embedding that is not known here.
    """
    given = _given(config, layout, kind, where)
    name = given.get("rope_type", given.get("type", "default"))
    name = layout.rope_renamed.get(name, name) if isinstance(name, str) else name
    if name not in ROPE_TYPES:
        raise WeightsError(
            f"{where}: rope_type {str(name)[:80]!r}",
            "one of " + ", ".join(ROPE_TYPES),
            "its scores would carry factors that wbtui does not know",
        )

    def field(key: str, default: float | None) -> float:
        return float(number(given, key, default, where))

    theta = field("rope_theta", _theta(config, layout, kind, where))
    if layout.rope_share is None:
        share = field("partial_rotary_factor", number(config, "partial_rotary_factor", 1.0, where))
        if share != 1.0:
            raise WeightsError(
                f"{where}: partial_rotary_factor is {share:g}", f"1: a {config.get('model_type')} turns whole heads"
            )
    else:
        share = field("partial_rotary_factor", number(config, layout.rope_share, layout.rope_share_default, where))
    if share > 1:
        raise WeightsError(f"{where}: partial_rotary_factor is {share:g}", "a share from 0 to 1")
    if theta <= 1:
        raise WeightsError(f"{where}: rope_theta is {theta:g}", "a base above 1")
    if name == "default":
        return RopeFacts(theta, share), 1.0
    if name == "dynamic":  # it changes angles only beyond the length that it was trained on
        return RopeFacts(theta, share, reach=whole(config, "max_position_embeddings", None, where)), 1.0
    length = 0
    if name in _LENGTHS:
        own = given.get("original_max_position_embeddings")
        if layout.rope_local_theta is None:  # nested parameters keep their own
            own = config.get("original_max_position_embeddings") or own
        own = own or config.get("max_position_embeddings")
        length = whole({"length": own}, "length", None, f"{where}: original_max_position_embeddings")
    if name in ("yarn", "longrope"):
        make = _yarn if name == "yarn" else _longrope
        angles, scaling = make(config, given, theta, int(d_head * share), length, where)
        reach = length if name == "longrope" else None
        return RopeFacts(theta, share, name, angles=angles, reach=reach), scaling
    if "factor" not in given:
        raise WeightsError(f"{where}: rope_type {name!r} without a factor", "its factor")
    if name == "linear":
        return RopeFacts(theta, share, name, field("factor", 1.0)), 1.0
    low, high = field("low_freq_factor", 1.0), field("high_freq_factor", 4.0)
    if not low < high:
        raise WeightsError(f"{where}: low_freq_factor {low}, high_freq_factor {high}", "low below high")
    return RopeFacts(theta, share, name, field("factor", 1.0), low, high, length), 1.0


def _given(config: dict[str, Any], layout: AttentionLayout, kind: str, where: str) -> dict[str, Any]:
    """The rotary parameters that a config gives for layers of a kind; empty where it gives none."""
    parts: list[dict[str, Any]] = []
    for name in ("rope_parameters", "rope_scaling"):
        value = config.get(name)
        if value is not None and not isinstance(value, dict):
            raise WeightsError(f"{where}: {name} is {str(value)[:80]}", "a JSON object")
        parts.append(value or {})
    given, scaling = parts
    nested = bool(given) and all(isinstance(v, dict) or v is None for v in given.values())
    if layout.rope_local_theta is not None:
        if given and not nested:
            raise WeightsError(f"{where}: one rope_parameters for all layers", "one for each layer type")
        own = dict(given.get(kind) or {})
        return own | scaling if kind == "full_attention" else own
    if nested:
        raise WeightsError(
            f"{where}: rope_parameters for {sorted(given)}", "one for all layers, as this model type turns its heads"
        )
    # a config may carry both styles: transformers lets rope_scaling win over rope_parameters
    return dict(scaling or given)


def _theta(config: dict[str, Any], layout: AttentionLayout, kind: str, where: str) -> float:
    if layout.rope_local_theta is not None and kind == "sliding_attention":
        return number(config, layout.rope_local_theta, 10_000.0, where)
    return number(config, layout.rope_theta, layout.rope_theta_default, where)


def _yarn(
    config: dict[str, Any], given: dict[str, Any], theta: float, dim: int, length: int, where: str
) -> tuple[tuple[float, ...], float]:
    """YaRN: slow pairs interpolated by the factor, fast ones kept, a ramp between; and its attention factor."""
    factor = given.get("factor")
    factor = number(config, "max_position_embeddings", None, where) / length if factor is None else factor
    factor = float(number({"factor": factor}, "factor", None, where))

    def mscale(weight: float = 1.0) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    scaling = given.get("attention_factor")
    if scaling is None:
        one, other = given.get("mscale"), given.get("mscale_all_dim")
        scaling = mscale()
        if one and other:
            weights = [float(number(given, key, None, where)) for key in ("mscale", "mscale_all_dim")]
            scaling = mscale(weights[0]) / mscale(weights[1])
    scaling = float(number({"attention_factor": scaling}, "attention_factor", None, where))

    def edge(turns: float) -> float:
        return dim * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(theta))

    fast, slow = (float(number(given, key, default, where)) for key, default in (("beta_fast", 32), ("beta_slow", 1)))
    low, high = edge(fast), edge(slow)
    if given.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    high = high + 0.001 if low == high else high
    angles = []
    for m, angle in enumerate(_plain_angles(theta, dim)):
        ramp = min(1.0, max(0.0, (m - low) / (high - low)))
        angles.append(angle / factor * ramp + angle * (1 - ramp))
    return tuple(angles), scaling


def _longrope(
    config: dict[str, Any], given: dict[str, Any], theta: float, dim: int, length: int, where: str
) -> tuple[tuple[float, ...], float]:
    """LongRoPE: a factor for each pair, here those of texts within the original length; and its attention factor."""
    factors = given.get("short_factor")
    angles = _plain_angles(theta, dim)
    if not isinstance(factors, list) or len(factors) != len(angles):
        raise WeightsError(f"{where}: longrope short_factor {str(factors)[:80]}", f"a list of {len(angles)} numbers")
    divisors = [float(number({"short_factor": f}, "short_factor", None, where)) for f in factors]
    scaled = [angle / divisor for angle, divisor in zip(angles, divisors, strict=True)]
    factor = given.get("factor")
    if factor is None:
        factor = number(config, "max_position_embeddings", None, where) / length
    factor = float(number({"factor": factor}, "factor", None, where))
    scaling = given.get("attention_factor")
    if scaling is None:
        scaling = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(max(2, length)))
    return tuple(scaled), float(number({"attention_factor": scaling}, "attention_factor", None, where))


def _plain_angles(theta: float, dim: int) -> list[float]:
    return [theta ** (-m / dim) for m in range(0, dim, 2)]


def rotary_frequencies(rope: RopeFacts, d_head: int) -> list[float]:
    """The angle per position of each turning pair, in pair order: ``r/2`` numbers, ``r = d_head * share`` rounded down.

    ``llama3`` (methods 3.4): wavelengths below ``original / high`` stay, those above ``original / low`` are divided by
    the factor, between them a blend that is linear in ``original / wavelength``.
    """
    if rope.angles:
        return list(rope.angles)
    out = []
    for angle in _plain_angles(rope.theta, int(d_head * rope.share)):
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
