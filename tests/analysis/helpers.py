"""Small vocabularies and the comparison rules of methods 3.5 ("Error scales")."""

from __future__ import annotations

import numpy as np
import torch

from wbtui.analysis.side import TokenTable, prepare_side
from wbtui.definitions import TokensDefinition

TOLERANCE = 1e-4


def vocabulary(n: int, seed: int = 0) -> dict:
    """Words, flags and normalised strings of ``n`` made-up tokens: spellings shared, some strings empty."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("abcde"))
    norms = ["".join(rng.choice(letters, size=rng.integers(0, 6))) for _ in range(n)]
    word = np.arange(n, dtype=np.int32)
    for i in range(0, n - 1, 3):
        word[rng.integers(i, n)] = i
    return {"word": word, "whole_word": rng.random(n) < 0.6, "norms": norms}


def table(tokens, vocab, definition=None, *, keep=None, scale=1.0, centre_values=False, **more) -> TokenTable:
    """``prepare_side`` with the vocabulary's columns spread out."""
    return prepare_side(
        tokens,
        scale=scale,
        centre_values=centre_values,
        keep=keep,
        definition=definition or TokensDefinition(),
        **vocab,
        **more,
    )


def dyadic(rng: np.random.Generator, *size: int, span: int = 8) -> torch.Tensor:
    """Multiples of 2^-6: fp32 products of these are exact, so ties are real."""
    return torch.from_numpy(rng.integers(-span, span + 1, size=size).astype(np.float32) / 64)


def error_scale(name: str, reference: np.ndarray, std: np.ndarray, n_kept: int) -> np.ndarray:
    """The scale that a column's error is measured on (methods 3.5)."""
    plain = name.removeprefix("against.")
    shape = std.reshape((-1,) + (1,) * (reference.ndim - 1))
    if plain in ("top_values", "bottom_values", "mean", "masked_best_value"):
        return np.broadcast_to(shape, reference.shape)
    if plain in ("z_max", "z_10", "z_min", "word_z"):
        return np.ones(reference.shape)
    if plain == "delta_h":
        return np.full(reference.shape, np.log(n_kept))
    if plain in ("skew", "kurt"):
        return np.maximum(1.0, abs(reference))
    return abs(reference)


def assert_columns(found: dict, expected: dict, n_kept: int, names=None) -> None:
    """Every float column within 1e-4 of its scale, NaN where the reference has NaN, every id exactly."""
    for name in names or found:
        a, b = found[name], expected[name]
        assert a.shape == b.shape, name
        if np.issubdtype(a.dtype, np.integer):
            np.testing.assert_array_equal(a, b, err_msg=name)
            continue
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b), err_msg=name)
        limit = TOLERANCE * error_scale(name, b, expected["std"], n_kept) + 1e-12
        bad = abs(a - b) > limit
        assert not bad.any(), f"{name}: {a[bad][:3]} against {b[bad][:3]}"
