"""Definitions: every parameter that changes a product's numbers, and nothing else.

A definition is part of a product's key, so two products with different definitions never meet. Thresholds are in no
definition: they are applied to stored metrics afterwards. Defaults are those of methods 1.2 and 1.5, all of them a
reconstruction of arXiv 2601.22447 with parameters of our own.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from wbtui.errors import UsageError

RECONSTRUCTION = "reconstruction of arXiv 2601.22447; thresholds are ours"

METHOD_VERSIONS = {"vocab": 1, "mask": 1, "tokens": 1, "null": 1}
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

    ``isotropic``: Gaussian unit directions; ``decoder_cov``: Gaussian with the dictionary's own covariance (decoder rows
    for writes, encoder columns for reads); ``sign_flip``: the dictionary's rows in their own principal axes with random
    signs, a control and never a threshold.
    """

    kind: str = "isotropic"
    n: int = 2000
    seed: int = 0


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


def to_json(definition: TokensDefinition | MaskDefinition | NullDefinition) -> dict[str, Any]:
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
