"""Definitions: every parameter that changes a product's numbers, and nothing else.

A definition is part of a product's key, so two products with different definitions never meet. Thresholds are in no
definition: they are applied to stored metrics afterwards. Defaults are those of methods 1.2 and 1.5, all of them a
reconstruction of arXiv 2601.22447 with parameters of our own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wbtui.errors import UsageError

TILE_STEP = 16
"""Rows of a tile come in multiples of this: with fewer rows a matrix product takes another kernel, with other last
digits (below 8 rows with AVX2, at 8 too with AVX-512), and a row's bits would depend on its company."""

RECONSTRUCTION = "reconstruction of arXiv 2601.22447; thresholds are ours"

METHOD_VERSIONS = {
    "vocab": 1,
    "mask": 1,
    "tokens": 2,
    "null": 2,
    "attention": 2,
    "attention_null": 2,
    "ov": 1,
    "ov_null": 1,
    "neighbours": 1,
    "neighbours_null": 1,
    "match": 3,
}
"""Raised whenever the numbers of an analysis change, or a mended bug leaves wrong numbers in caches."""


@dataclass(frozen=True)
class MaskDefinition:
    """The under-trained-token mask (methods 1.2): a token goes when it has at least ``count`` neighbours above ``cut``.

    Neighbours are counted by cosine of rows centred by the vocabulary mean; exactly up to ``exact_below`` tokens, else
    against a seeded sample of ``sample`` rows with the count scaled ("estimated").
    """

    cut: float = 0.7
    count: int = 10
    exact_below: int = 65_536
    sample: int = 16_384
    seed: int = 0


@dataclass(frozen=True)
class TokensDefinition:
    """E1, the ``tokens`` analysis (methods 1.2)."""

    name: str = "folded"
    """Shown name of the definition; not in the key."""
    unembed: str = "folded"
    """``folded``: final norm (gain, centring) folded into the decoder row; ``raw``: not folded."""
    center_tokens: bool = True
    """Token rows centred by the vocabulary mean on the reads side (values change, ranks do not)."""
    mask: MaskDefinition | None = dataclasses.field(default_factory=MaskDefinition)
    """None keeps every token, special and padded ones too, as published lists do."""
    kappa: float = 2.0
    k_show: int = 25
    k_sem: int = 10
    k_words: int = 20
    dtype: str = "float32"


@dataclass(frozen=True)
class NullDefinition:
    """Random directions through the same code (methods 1.2).

    ``isotropic``: Gaussian unit directions; ``decoder_cov``: Gaussian with the dictionary's own covariance (decoder
    rows for writes, encoder columns for reads); ``sign_flip``: the dictionary's rows in their own principal axes with
    random signs, a control and never a threshold.
    """

    kind: str = "isotropic"
    n: int = 2000
    seed: int = 0


@dataclass(frozen=True)
class AttentionDefinition:
    """E2, the ``attention`` analysis (methods 1.3, 3.2, 3.4)."""

    name: str = "content"
    """Shown name of the definition; not in the key."""
    scale: str = "rms"
    """Length of a feature in front of the head: ``rms`` (what the norm would put out if the stream held this feature
    alone: sqrt(D)), ``unit`` (1), ``act`` (``activation / stream_rms`` times the decoder row as it is)."""
    activation: float | None = None
    stream_rms: float | None = None
    rope: str = "offset"
    """``offset`` (the key stands ``offset`` positions before the query; 0 is content only), ``mean`` (over the offsets
    0 … ``offsets`` - 1), ``bound`` (the largest score that any offset could give)."""
    offset: int = 0
    offsets: int = 128
    softcap: bool = True
    """The model's score cap inside the softmax; scores themselves are stored uncapped."""
    bias: bool = True
    """Biases inside the softmax; scores themselves are without."""
    pairs_below: int = 65_536
    """All pairs up to this many features; above, a seeded sample of ``n_key`` partners, and peaks are estimates."""
    n_key: int = 4096
    p75_below: int = 4096
    """P75 exact up to this many features; above, from a seeded sample of as many partners."""
    seed: int = 0
    gain_directions: int = 2000
    dtype: str = "float32"


@dataclass(frozen=True)
class NeighboursDefinition:
    """Nearest features by cosine, the ``neighbours`` analysis (methods 2.2)."""

    k: int = 5
    """How many of the nearest are kept."""
    dtype: str = "float32"


@dataclass(frozen=True)
class MatchDefinition:
    """Two SAEs at one place, the ``match`` analysis (methods 2.2)."""

    n_null: int = 256
    """Random directions of each kind that stand in for each side's features."""
    seed: int = 0
    assign: bool = False
    """Also the one-to-one pairing of largest total cosine."""
    dtype: str = "float32"


ATTENTION_SCALES = ("rms", "unit", "act")
ROPE_MODES = ("offset", "mean", "bound")

DICTIONARY_NULLS = ("decoder_cov", "sign_flip")
"""Kinds of null that depend on the dictionary; ``isotropic`` is shared by every SAE of a model."""

THRESHOLD_NULLS = (NullDefinition("isotropic"), NullDefinition("decoder_cov"))
CHECK_NULLS = (
    NullDefinition("isotropic", seed=1),
    NullDefinition("decoder_cov", seed=1),
    NullDefinition("sign_flip", seed=1),
)

DEFINITIONS = {
    "folded": TokensDefinition(),
    "neuronpedia": TokensDefinition(name="neuronpedia", unembed="raw", center_tokens=False, mask=None),
    "neuronpedia-folded": TokensDefinition(name="neuronpedia-folded", center_tokens=False, mask=None),
}
"""Named definitions. ``neuronpedia`` matches lists made without model processing (SAEDashboard since December 2025),
``neuronpedia-folded`` those made with TransformerLens's default processing (methods 1.2)."""


def named_definition(name: str) -> TokensDefinition:
    """The definition called ``name``.

    Raises:
        UsageError: unknown name.
    """
    try:
        return DEFINITIONS[name]
    except KeyError:
        raise UsageError(f"definition {name!r}", "one of " + ", ".join(DEFINITIONS)) from None


def to_json(
    definition: TokensDefinition
    | MaskDefinition
    | NullDefinition
    | AttentionDefinition
    | NeighboursDefinition
    | MatchDefinition,
) -> dict[str, Any]:
    """A definition as plain JSON data, as it stands in keys, manifests and on the wire."""
    return dataclasses.asdict(definition)


def tokens_from_json(data: dict[str, Any]) -> TokensDefinition:
    """The inverse of :func:`to_json` for the ``tokens`` analysis; unknown fields are refused."""
    known = {field.name for field in dataclasses.fields(TokensDefinition)}
    unknown = set(data) - known
    if unknown:
        raise UsageError(f"definition fields {sorted(unknown)}", f"only {sorted(known)}")
    data = dict(data)
    if data.get("mask") is not None:
        data["mask"] = MaskDefinition(**data["mask"])
    return TokensDefinition(**data)


def attention_from_json(data: dict[str, Any]) -> AttentionDefinition:
    """An ``attention`` definition out of plain data, checked.

    Raises:
        UsageError: unknown fields, or values that mean nothing.
    """
    known = {field.name for field in dataclasses.fields(AttentionDefinition)}
    unknown = set(data) - known
    if unknown:
        raise UsageError(f"definition fields {sorted(unknown)}", f"only {sorted(known)}")
    definition = AttentionDefinition(**data)
    if definition.scale not in ATTENTION_SCALES:
        raise UsageError(f"scale {definition.scale!r}", "one of " + ", ".join(ATTENTION_SCALES))
    if definition.rope not in ROPE_MODES:
        raise UsageError(f"rope mode {definition.rope!r}", "one of " + ", ".join(ROPE_MODES))
    if definition.scale == "act" and not (definition.activation and definition.stream_rms):
        raise UsageError("scale act without activation and stream_rms", "both, as measured on data")
    counts = {
        "offset": (definition.offset, 0),
        "offsets": (definition.offsets, 1),
        "n_key": (definition.n_key, 1),
        "p75_below": (definition.p75_below, 1),
        "gain_directions": (definition.gain_directions, 1),
    }
    for name, (value, least) in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UsageError(f"{name} {value!r}", f"a whole number, {least} or more")
    return definition


def neighbours_from_json(data: dict[str, Any]) -> NeighboursDefinition:
    """A ``neighbours`` definition out of plain data, checked.

    Raises:
        UsageError: unknown fields, or values that mean nothing.
    """
    known = {field.name for field in dataclasses.fields(NeighboursDefinition)}
    unknown = set(data) - known
    if unknown:
        raise UsageError(f"definition fields {sorted(unknown)}", f"only {sorted(known)}")
    definition = NeighboursDefinition(**data)
    if isinstance(definition.k, bool) or not isinstance(definition.k, int) or not 1 <= definition.k <= 100:
        raise UsageError(f"k {definition.k!r}", "a whole number from 1 to 100")
    return definition


def match_from_json(data: dict[str, Any]) -> MatchDefinition:
    """A ``match`` definition out of plain data, checked.

    Raises:
        UsageError: unknown fields, or values that mean nothing.
    """
    known = {field.name for field in dataclasses.fields(MatchDefinition)}
    unknown = set(data) - known
    if unknown:
        raise UsageError(f"definition fields {sorted(unknown)}", f"only {sorted(known)}")
    definition = MatchDefinition(**data)
    for name, least, most in (("n_null", 0, 4096), ("seed", 0, 1 << 31)):
        value = getattr(definition, name)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise UsageError(f"{name} {value!r}", f"a whole number from {least} to {most}")
    if not isinstance(definition.assign, bool):
        raise UsageError(f"assign {definition.assign!r}", "true or false")
    return definition


def attention_parts(parts: Sequence[str]) -> AttentionDefinition:
    """An ``attention`` definition from named parts: ``rope=mean``, ``offset=7``, ``scale=unit``, ``softcap=off``.

    Args:
        parts: ``name=value``; what is not named stays as it is by default.

    Raises:
        UsageError: an unknown name, a value of the wrong kind, or one that means nothing.
    """
    fields = {f.name: f for f in dataclasses.fields(AttentionDefinition) if f.name not in ("name", "dtype")}
    body: dict[str, Any] = {}
    for part in parts:
        name, equals, text = part.partition("=")
        if not equals or name not in fields:
            raise UsageError(f"part {part!r}", "NAME=VALUE, a name of " + ", ".join(fields))
        body[name] = _part(name, text, fields[name])
    return attention_from_json(body)


def _part(name: str, text: str, field: dataclasses.Field[Any]) -> Any:
    kind = str(field.type)
    if kind == "bool":
        if text not in ("on", "off"):
            raise UsageError(f"{name}={text}", f"{name}=on or {name}=off")
        return text == "on"
    try:
        return int(text) if kind == "int" else float(text) if kind.startswith("float") else text
    except ValueError:
        raise UsageError(f"{name}={text}", f"{name} as {'a whole number' if kind == 'int' else 'a number'}") from None
