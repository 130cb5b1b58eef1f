"""Every column against the dense float64 reference; ids exactly where weights are multiples of 2^-6, ties real."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.analysis import reference
from tests.analysis.helpers import assert_columns, dyadic, table, vocabulary
from wbtui.analysis.tokens import output_directions, token_rows
from wbtui.definitions import TokensDefinition

SMALL = TokensDefinition(k_show=12, k_sem=10, k_words=20)


def keep_mask(n: int, share: float, seed: int) -> np.ndarray:
    keep = np.random.default_rng(seed).random(n) >= share
    keep[:2] = True
    return keep


@pytest.mark.parametrize("n_tokens", [37, 130, 1000, 4096, 5003])
@pytest.mark.parametrize("masked", [0.0, 0.2])
@pytest.mark.parametrize(("scale", "centre_values", "tile"), [(1.0, False, 8), (6.5, True, 128)])
def test_exact_weights(n_tokens, masked, scale, centre_values, tile):
    rng = np.random.default_rng(n_tokens)
    tokens, directions = dyadic(rng, n_tokens, 24, span=3), dyadic(rng, 11, 24, span=3)
    vocab, keep = vocabulary(n_tokens), keep_mask(n_tokens, masked, n_tokens)
    side = table(tokens, vocab, SMALL, keep=keep, scale=scale, centre_values=centre_values)
    found = token_rows(directions, side, top_cos=True, tile=tile)
    expected = reference.side(directions, tokens, keep, vocab, SMALL, scale=scale, centre_values=centre_values)
    ties = sum(len(np.unique(row)) < len(row) for row in found["top_values"])
    assert ties > 0, "the case is meant to have ties"
    assert_columns(found, expected, int(keep.sum()))


@pytest.mark.parametrize("n_tokens", [700, 4500])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lazy", [False, True])
def test_gaussian_weights(n_tokens, dtype, lazy):
    rng = torch.Generator().manual_seed(n_tokens)
    # An anisotropic vocabulary: a mean row three times as long as the spread, uneven row lengths.
    tokens = torch.randn((n_tokens, 64), generator=rng) * torch.rand((n_tokens, 1), generator=rng)
    tokens = (tokens + 3 * torch.randn(64, generator=rng)).to(dtype)
    directions = torch.randn((20, 64), generator=rng)
    vocab, keep = vocabulary(n_tokens, 1), keep_mask(n_tokens, 0.1, 1)
    side = table(tokens, vocab, keep=keep, centre_values=True, lazy=lazy)
    found = token_rows(directions, side, top_cos=True, tile=8)
    expected = reference.side(directions, tokens.float(), keep, vocab, side.definition, centre_values=True)
    scores = np.asarray(directions, dtype=np.float64) @ np.asarray(tokens.float(), dtype=np.float64).T
    same = np.ones(len(directions), dtype=bool)
    for name in ("top_ids", "bottom_ids", "word_ids", "against.word_ids"):
        gap = np.take_along_axis(scores, found[name], 1) - np.take_along_axis(scores, expected[name], 1)
        assert (abs(gap) < 1e-6 * abs(scores).max(1, keepdims=True)).all(), name
        same &= (found[name] == expected[name]).all(1)
    assert same.mean() > 0.9
    assert_columns({k: v[same] for k, v in found.items()}, {k: v[same] for k, v in expected.items()}, int(keep.sum()))


@pytest.mark.parametrize("unembed", ["folded", "raw"])
@pytest.mark.parametrize("centre", [False, True])
def test_output_directions_are_the_explicit_matrices(unembed, centre):
    rng = torch.Generator().manual_seed(5)
    d, gain = torch.randn((9, 32), generator=rng) * 7, torch.rand(32, generator=rng) + 0.5
    directions, lengths = output_directions(d, gain, centre, unembed)
    found = (directions.double() / lengths[:, None]).numpy()
    expected = reference.folded(d.double().numpy(), gain.double().numpy(), centre, unembed)
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_words_beyond_the_first_candidates():
    """GIVEN a vocabulary whose best 300 tokens are spellings of three words
    THEN the next words are still found, by a longer search."""
    n = 2000
    tokens = torch.arange(n, 0, -1, dtype=torch.float32)[:, None] / 64
    vocab = vocabulary(n)
    vocab["word"] = np.arange(n, dtype=np.int32)
    vocab["word"][:300] = np.arange(300) % 3
    found = token_rows(torch.ones(1, 1), table(tokens, vocab))
    assert found["word_ids"][0].tolist() == [0, 1, 2, *range(300, 317)]
    assert found["against.word_ids"][0].tolist() == list(range(n - 1, n - 21, -1))


def test_a_vocabulary_with_two_words_in_all():
    n = 500
    tokens = torch.arange(n, 0, -1, dtype=torch.float32)[:, None]
    vocab = vocabulary(n)
    vocab["word"] = (np.arange(n) >= 400).astype(np.int32)
    found = token_rows(torch.ones(1, 1), table(tokens, vocab))
    assert found["word_ids"][0].tolist() == [0, 400] + [-1] * 18
    assert np.isnan(found["word_z"][0, 2:]).all()
    assert not np.isnan(found["word_z"][0, :2]).any()


def test_the_edit_distance_of_the_reference():
    assert reference.edit_distance("kitten", "sitting") == 3
    assert reference.similarity(["", "", "a"]) == 0.0
