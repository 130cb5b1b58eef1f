"""Cases small enough to know every number by hand.

Five tokens of width 2; along (1, 0) their scores are 3, 1, -1, -3 and, masked, 2: mean 0, variance 5, kurtosis
(81 + 1 + 1 + 81) / 4 / 25 = 1.64.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.analysis.helpers import table, vocabulary
from wbtui.analysis import coherence
from wbtui.analysis.tokens import output_directions, token_rows
from wbtui.definitions import TokensDefinition

TOKENS = torch.tensor([[3.0, 1.0], [1.0, 2.0], [-1.0, -2.0], [-3.0, -1.0], [2.0, 0.0]])
KEEP = np.array([True, True, True, True, False])
VOCAB = {
    "word": np.array([0, 0, 2, 3, 4]),
    "whole_word": np.array([True, False, True, False, True]),
    "norms": ["cat", "cats", "dog", "", "x"],
}
SMALL = TokensDefinition(k_show=3, k_sem=2, k_words=3, kappa=2.0)


@pytest.fixture(scope="module")
def rows():
    side = table(TOKENS, VOCAB, SMALL, keep=KEEP)
    return token_rows(torch.tensor([[1.0, 0.0]]), side, top_cos=True)


def test_lists_and_moments(rows):
    assert rows["top_ids"][0].tolist() == [0, 1, 2]
    assert rows["top_values"][0].tolist() == [3.0, 1.0, -1.0]
    assert rows["bottom_ids"][0].tolist() == [3, 2, 1]
    assert rows["bottom_values"][0].tolist() == [-3.0, -1.0, 1.0]
    assert rows["mean"][0] == 0.0
    assert rows["std"][0] == pytest.approx(math.sqrt(5), rel=1e-6)
    assert rows["skew"][0] == pytest.approx(0.0, abs=1e-6)
    assert rows["kurt"][0] == pytest.approx(1.64, rel=1e-6)
    assert rows["z_min"][0] == pytest.approx(-3 / math.sqrt(5), rel=1e-6)


def test_shape_of_both_signs(rows):
    p = [math.exp(2 * x / math.sqrt(5)) for x in (3, 1, -1, -3)]
    p = [x / sum(p) for x in p]
    h = -sum(x * math.log(x) for x in p)
    for prefix in ("", "against."):
        assert rows[prefix + "z_max"][0] == pytest.approx(3 / math.sqrt(5), rel=1e-6)
        assert rows[prefix + "z_10"][0] == pytest.approx(1 / math.sqrt(5), rel=1e-6)
        assert rows[prefix + "h_kappa"][0] == pytest.approx(h, rel=1e-6)
        assert rows[prefix + "delta_h"][0] == pytest.approx(math.log(4) - 2 - h, rel=1e-6)
        assert rows[prefix + "mass_1"][0] == pytest.approx(p[0], rel=1e-6)
        assert rows[prefix + "mass_10"][0] == pytest.approx(p[0] + p[1], rel=1e-6)


def test_coherence(rows):
    # Writes: cat, cats. The mean row of the kept tokens is 0, so cos((3,1), (1,2)) = 5 / sqrt(50).
    assert rows["lev"][0] == pytest.approx(0.75)
    assert rows["cos_tok"][0] == pytest.approx(5 / math.sqrt(50), rel=1e-6)
    assert rows["word_share"][0] == 0.5
    # Against: the empty string and dog.
    assert rows["against.lev"][0] == 0.0
    assert rows["against.cos_tok"][0] == pytest.approx(5 / math.sqrt(50), rel=1e-6)
    assert rows["against.word_share"][0] == 0.5
    expected = [3 / math.sqrt(10), 1 / math.sqrt(5), -1 / math.sqrt(5)]
    np.testing.assert_allclose(rows["top_cos"][0], expected, rtol=1e-6)


def test_a_row_at_the_centre_has_cosine_zero():
    rows = torch.tensor([[2.0, 1.0], [3.0, 1.0], [3.0, 1.0], [2.0, 2.0]])
    lists = torch.tensor([[0, 1, 2], [1, 2, 3]])
    found = coherence.mean_cosine(rows, lists, torch.tensor([2.0, 1.0]).double())
    assert found.tolist() == pytest.approx([1 / 3, 1 / 3])
    assert coherence.centred_norms(rows, lists, torch.tensor([2.0, 1.0]).double()).tolist() == [[0, 1, 1], [1, 1, 1]]


def test_a_row_at_the_centre_has_cosine_zero_by_known_norms_too():
    rows = torch.tensor([[2.0, 1.0], [3.0, 1.0], [3.0, 1.0], [2.0, 2.0]])
    lists, centre = torch.tensor([[0, 1, 2], [1, 2, 3]]), torch.tensor([2.0, 1.0]).double()
    norms = coherence.centred_norms(rows, lists, centre)
    for dtype in (torch.float32, torch.bfloat16):
        found = coherence.mean_cosine_by_norms(rows.to(dtype), lists, centre, norms)
        assert found.tolist() == pytest.approx([1 / 3, 1 / 3])


@pytest.mark.parametrize("flatten", [False, True])
@pytest.mark.parametrize("away", [0.0, 1.0, 30.0])
def test_cosines_by_known_norms_are_those_of_the_centred_rows(flatten, away):
    """``away``: the centre's length over that of the rows about it, whose fp32 digits it eats."""
    draw = torch.Generator().manual_seed(2)
    rows = torch.randn((400, 96), generator=draw) + away * torch.randn(96, generator=draw)
    centre = rows.double().mean(0)
    lists = torch.randint(400, (50, 10), generator=draw)
    norms = coherence.centred_norms(rows, lists, centre, flatten)
    found = coherence.mean_cosine_by_norms(rows, lists, centre, norms, flatten)
    expected = coherence.mean_cosine(rows, lists, centre, flatten)
    np.testing.assert_allclose(found, expected, atol=3e-8 * (1 + away))
    some = coherence.mean_cosine_by_norms(rows, lists[7:12], centre, norms[7:12], flatten)
    assert torch.equal(some, found[7:12])


def test_a_token_s_distance_from_the_centre_is_taken_once(monkeypatch):
    side = table(torch.randn((300, 8), generator=torch.Generator().manual_seed(0)), vocabulary(300))
    seen, real = [], coherence.centred_norms

    def counted(rows, positions, centre, flatten=False):
        seen.extend(positions.flatten().tolist())
        return real(rows, positions, centre, flatten)

    monkeypatch.setattr(coherence, "centred_norms", counted)
    directions = torch.randn((64, 8), generator=torch.Generator().manual_seed(1))
    found = [token_rows(directions, side, top_cos=True) for _ in range(2)]
    assert 0 < len(seen) == len(set(seen)) <= 300
    np.testing.assert_array_equal(found[0]["top_cos"], found[1]["top_cos"])
    twin = side.shared(scale=2.0, centre_values=True, flatten=True)  # rows without their all-ones component: others
    token_rows(directions, twin, top_cos=True)
    assert len(seen) > len(set(seen))


def test_distinct_words(rows):
    # Tokens 0 and 1 are one word: the second word is token 2.
    assert rows["word_ids"][0].tolist() == [0, 2, 3]
    np.testing.assert_allclose(rows["word_z"][0], np.array([3, -1, -3]) / math.sqrt(5), rtol=1e-6)
    assert rows["against.word_ids"][0].tolist() == [3, 2, 1]


def test_fewer_words_than_asked_for():
    definition = TokensDefinition(k_show=3, k_sem=2, k_words=4)
    found = token_rows(torch.tensor([[1.0, 0.0]]), table(TOKENS, VOCAB, definition, keep=KEEP))
    assert found["word_ids"][0].tolist() == [0, 2, 3, -1]
    assert np.isnan(found["word_z"][0]).tolist() == [False, False, False, True]


def test_masked_tokens_stay_out_and_are_counted(rows):
    # Token 4 (score 2) would have stood above the second kept one (score 1).
    assert rows["n_masked_above"][0] == 1
    assert rows["masked_best_id"][0] == 4
    assert rows["masked_best_value"][0] == 2.0


def test_a_masked_token_level_with_the_bar_counts_by_id():
    tokens = torch.tensor([[1.0], [1.0], [1.0], [0.0]])
    vocab = {"word": np.arange(4), "whole_word": np.ones(4, bool), "norms": list("abcd")}
    definition = TokensDefinition(k_show=1, k_sem=1, k_words=1)
    found = {}
    for masked in (0, 2):
        keep = np.arange(4) != masked
        found[masked] = token_rows(torch.ones(1, 1), table(tokens, vocab, definition, keep=keep))
    assert found[0]["n_masked_above"][0] == 1
    assert found[2]["n_masked_above"][0] == 0


def test_centring_and_scale_change_values_only():
    side = table(TOKENS + 1.0, VOCAB, SMALL, keep=KEEP, scale=4.0, centre_values=True)
    found = token_rows(torch.tensor([[2.0, 0.0]]), side)
    assert found["top_ids"][0].tolist() == [0, 1, 2]
    assert found["top_values"][0].tolist() == [24.0, 8.0, -8.0]
    assert found["mean"][0] == 0.0
    assert found["std"][0] == pytest.approx(8 * math.sqrt(5), rel=1e-6)
    assert found["masked_best_value"][0] == 16.0


def test_vocabulary_smaller_than_the_lists():
    definition = TokensDefinition(k_show=6, k_sem=10, k_words=2)
    found = token_rows(torch.tensor([[1.0, 0.0]]), table(TOKENS, VOCAB, definition, keep=KEEP))
    assert found["top_ids"][0].tolist() == [0, 1, 2, 3, -1, -1]
    assert np.isnan(found["top_values"][0]).tolist() == [False] * 4 + [True] * 2
    assert np.isnan(found["z_10"][0])
    assert found["mass_10"][0] == pytest.approx(1.0)


def test_a_row_without_spread_has_no_shape():
    tokens = torch.tensor([[0.1, 1.0], [0.1, 2.0], [0.1, 3.0]])
    vocab = {"word": np.arange(3), "whole_word": np.ones(3, bool), "norms": list("abc")}
    found = token_rows(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), table(tokens, vocab, SMALL))
    assert found["std"][0] == 0.0
    for name in ("z_max", "z_10", "h_kappa", "delta_h", "lev", "cos_tok", "skew", "kurt", "mass_1", "word_share"):
        assert np.isnan(found[name][0]), name
        assert not np.isnan(found[name][1]), name
    assert (found["word_ids"][0] == -1).all()


def test_output_directions():
    d = torch.tensor([[3.0, 4.0], [0.0, 0.0], [float("nan"), 1.0], [5.0, 5.0]])
    gain = torch.tensor([2.0, 10.0])

    def unit(centre, unembed):
        directions, lengths = output_directions(d, gain, centre, unembed)
        return directions / lengths[:, None]

    np.testing.assert_allclose(unit(False, "raw")[0], [0.6, 0.8], rtol=1e-6)
    np.testing.assert_allclose(unit(False, "folded")[0], [1.2, 8.0], rtol=1e-6)
    found = unit(True, "folded")
    np.testing.assert_allclose(found[0], [-0.2, 1.0], rtol=1e-6)
    assert found[1].tolist() == [0.0, 0.0]
    assert found[2].isnan().all()
    # A constant row is all mean: LayerNorm takes it away, and rounding must not be blown up to a direction.
    assert found[3].tolist() == [0.0, 0.0]


def test_entropy_deficit_of_gaussian_scores_is_zero():
    rng = torch.Generator().manual_seed(3)
    n = 60_000
    tokens = torch.randn((n, 48), generator=rng)
    vocab = {"word": np.arange(n), "whole_word": np.ones(n, bool), "norms": ["a"] * n}
    found = token_rows(torch.randn((32, 48), generator=rng), table(tokens, vocab), want="pos")
    # sd of one row is about 0.1 at this size (methods 1.2), so the mean of 32 lies within 0.06.
    assert abs(found["delta_h"].mean()) < 0.06
    assert found["delta_h"].std() < 0.25
    assert np.allclose(found["kurt"], 3.0, atol=0.15)
