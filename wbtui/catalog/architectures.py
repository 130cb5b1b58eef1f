"""From a ``config.json`` to the table's row and the model's sizes. Unknown types are refused.

A config is read once into its *effective* form (:func:`effective_config`): the language model's own fields, flat, with
what the model's class fills in where the file lacks a field. Everything else here takes that form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from wbtui.catalog.layouts import Architecture, AttentionLayout
from wbtui.catalog.model_table import ARCHITECTURES
from wbtui.errors import WeightsError

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "AttentionLayout",
    "Dimensions",
    "architecture_of",
    "dimensions",
    "effective_config",
    "embedding_multiplier",
]

MAX_LAYERS = 10_000
MAX_SIZE = 10_000_000
MAX_HEADS = 65_536


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
            f"{where}: model_type {kind[:80]!r} is not supported",
            "one of " + ", ".join(sorted(ARCHITECTURES)),
            "its norms and layouts are unknown here, and wbtui does not guess",
        )
    return ARCHITECTURES[kind]


def effective_config(config: dict[str, Any], where: str) -> dict[str, Any]:
    """A config as the analysis takes it: flat, with the class's own values for what is missing.

    Of a wrapper around several models (Gemma-3 with vision) the fields are those of its ``text_config``; whether
    embeddings are tied is said by the wrapper where it says so. A field that is there, null or not, stays.

    Args:
        config: the parsed ``config.json``.
        where: the file, for errors.

    Raises:
        WeightsError: an unknown type, a wrapper without a language model, a switch that makes another model.
    """
    arch = architecture_of(config, where)
    flat = config
    if arch.text_configs:
        inner = config.get("text_config")
        if not isinstance(inner, dict):
            raise WeightsError(
                f"{where}: no text_config", f"a {arch.model_type} config with its language model's fields"
            )
        kind = inner.get("model_type", arch.text_configs[0])
        if kind not in arch.text_configs:
            raise WeightsError(
                f"{where}: text_config of model_type {str(kind)[:80]!r}", "one of " + ", ".join(arch.text_configs)
            )
        flat = inner | {"model_type": arch.model_type}
        if config.get("tie_word_embeddings") is not None:
            flat["tie_word_embeddings"] = config["tie_word_embeddings"]
    for key, allowed in arch.must.items():
        if key in flat and flat[key] not in allowed:
            raise WeightsError(
                f"{where}: {key} is {str(flat[key])[:80]}",
                f"{allowed[-1]}",
                f"a {arch.model_type} with it is another model, unknown here",
            )
    filled = {**arch.defaults, **flat}
    if filled["tie_word_embeddings"] is None:
        filled["tie_word_embeddings"] = arch.defaults["tie_word_embeddings"]
    return filled


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
    """Sizes out of an effective config, each checked to be a sane positive integer.

    Raises:
        WeightsError: a field is missing or absurd.
    """
    arch = architecture_of(config, where)

    def integer(key: str, default: int | None = None, largest: int = MAX_SIZE) -> int:
        value = config.get(key)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= largest:
            raise WeightsError(f"{where}: {key} is {repr(value)[:80]}", f"a whole number from 1 to {largest:,}")
        return value

    d_model = integer(arch.key_d_model)
    n_layers = integer(arch.key_n_layers, largest=MAX_LAYERS)
    n_heads = integer(arch.key_n_heads, largest=MAX_HEADS)
    tied = config.get("tie_word_embeddings", False)
    if not isinstance(tied, bool):
        raise WeightsError(f"{where}: tie_word_embeddings is {str(tied)[:80]}", "true or false")
    return Dimensions(
        d_model=d_model,
        n_layers=n_layers,
        n_heads=n_heads,
        d_head=integer("head_dim", max(1, d_model // n_heads), MAX_HEADS),
        d_mlp=integer(arch.key_d_mlp, 4 * d_model if arch.key_d_mlp == "n_inner" else None),
        d_vocab=integer("vocab_size"),
        tied=tied,
    )


def embedding_multiplier(arch: Architecture, d_model: int) -> float:
    """alpha of methods 0: what the model multiplies token embeddings by (in float32; bf16 checkpoints round it)."""
    return math.sqrt(d_model) if arch.embedding_scale == "sqrt_d_model" else 1.0
