"""The product in fewer bits: every list, value, tie and count is that of the fp32 product, whatever the weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.analysis.helpers import dyadic, table, vocabulary
from wbtui.analysis import rounded, streaming
from wbtui.analysis.rounded import DTYPES, RoundedTile, rounded_product
from wbtui.analysis.streaming import TileBuffer
from wbtui.analysis.tokens import token_rows
from wbtui.definitions import TokensDefinition

KINDS = tuple(DTYPES)
EXACT = (
    "top_ids", "bottom_ids", "top_values", "bottom_values", "n_masked_above", "masked_best_id", "masked_best_value",
    "word_ids", "against.word_ids", "lev", "cos_tok", "word_share", "against.lev", "against.word_share",
)  # fmt: skip
NEARLY = {
    "mean": 1e-6, "std": 1e-6, "z_max": 2e-5, "z_10": 2e-5, "z_min": 2e-5, "word_z": 2e-5, "skew": 2e-3, "kurt": 2e-2,
    "h_kappa": 2e-3, "delta_h": 2e-3, "mass_1": 2e-3, "mass_10": 2e-3,
}  # fmt: skip
"""Largest differences allowed on weights without structure; values in standard deviations."""


def both(tokens, directions, kind, *, keep=None, top_cos=False, may_stay=False, **more):
    """Rows by the fp32 product and by the rounded one."""
    vocab = vocabulary(len(tokens))
    out = []
    for product in ("fp32", kind):
        side = table(tokens, vocab, keep=keep, product=product, **more)
        assert may_stay or (side.rounded is not None) == (product != "fp32")
        out.append(token_rows(directions, side, top_cos=top_cos))
    return out


def assert_exact(plain, low, but=()):
    for name in set(EXACT) - set(but):
        np.testing.assert_array_equal(low[name], plain[name], err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_lists_and_values_are_those_of_fp32(kind, stored):
    rng = torch.Generator().manual_seed(3)
    tokens = (torch.randn((6000, 128), generator=rng) * 0.05).to(stored)
    directions = torch.randn((70, 128), generator=rng)
    keep = np.random.default_rng(0).random(6000) > 0.03
    plain, low = both(tokens, directions, kind, keep=keep)
    assert_exact(plain, low)
    plain, low = both(tokens, directions, kind, keep=keep, centre_values=True, top_cos=True)
    centred = ("top_values", "bottom_values", "masked_best_value")
    assert_exact(plain, low, but=centred)
    for name in (*centred, "top_cos"):  # the mean that centring takes away is rounded elsewhere
        np.testing.assert_allclose(low[name], plain[name], rtol=5e-7, err_msg=name)
    for name, allowed in NEARLY.items():
        scale = plain["std"].max() if name in ("mean", "std") else 1.0
        np.testing.assert_allclose(low[name] / scale, plain[name] / scale, rtol=0, atol=allowed, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_ties_resolve_by_id(kind):
    """Few distinct scores: hundreds of true ties at every cut, all of them exact in fp32 and none in few bits."""
    rng = np.random.default_rng(5)
    tokens = dyadic(rng, 3000, 24, span=2)
    directions = dyadic(rng, 33, 24, span=60)
    plain, low = both(tokens, directions, kind, keep=np.arange(3000) % 11 != 0)
    assert (plain["top_values"][:, 1:] == plain["top_values"][:, :-1]).any(1).mean() > 0.5
    assert_exact(plain, low)


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_far_longer_than_the_others_only_costs_time(kind):
    rng = torch.Generator().manual_seed(4)
    tokens = torch.randn((5000, 64), generator=rng) * torch.logspace(-3, 2, 5000)[:, None]
    plain, low = both(tokens, torch.randn((20, 64), generator=rng), kind)
    assert_exact(plain, low)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_whose_spread_rounding_moves_is_computed_in_fp32_whole(kind):
    """Tokens vary a million times more along one axis than along the others. A direction that avoids it has a spread
    that rounding would swamp."""
    rng = torch.Generator().manual_seed(6)
    spread = torch.full((64,), 1e-4)
    spread[0] = 100.0
    tokens = torch.randn((4000, 64), generator=rng) * spread
    directions = torch.randn((16, 64), generator=rng)
    directions[:8, 0] = 0.0
    directions[8:12, 0] = 1e-6 / 3
    plain, low = both(tokens, directions, kind)
    assert_exact(plain, low)
    np.testing.assert_allclose(low["std"], plain["std"], rtol=1e-4)
    np.testing.assert_allclose(low["h_kappa"], plain["h_kappa"], atol=5e-3)


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(KINDS),
    n=st.integers(1, 900),
    dim=st.integers(1, 40),
    tail=st.sampled_from([0.0, 1.0, 3.0]),
)
def test_whatever_the_weights(seed, kind, n, dim, tail):
    rng = np.random.default_rng(seed)
    tokens = torch.from_numpy((rng.standard_normal((n, dim)) * np.exp(tail * rng.standard_normal((n, 1)))).astype("f4"))
    directions = torch.from_numpy(rng.standard_normal((7, dim)).astype("f4"))
    keep = rng.random(n) > 0.2
    keep[0] = True
    plain, low = both(tokens, directions, kind, keep=keep, may_stay=kind == "fp16")
    for name in EXACT[:4]:
        np.testing.assert_array_equal(low[name], plain[name], err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_the_bound_holds_and_is_not_idle(kind):
    """Every rounded score lies within its slack of the fp64 score; and the slack excludes nearly everything."""
    rng = torch.Generator().manual_seed(8)
    tokens, directions = torch.randn((20_000, 256), generator=rng), torch.randn((32, 256), generator=rng) / 32
    side = table(tokens, vocabulary(20_000), product=kind)
    assert side.rounded is not None
    scores = rounded_product(directions, side.rounded, torch.empty((32, 20_000)))
    tile = RoundedTile(side.rounded, side.rows, side.n_kept, directions, 32, scores, TileBuffer())
    truth = directions.double() @ tokens.double().T
    error, slack = (scores - truth).abs(), tile._slack(scores.double(), slice(0, 32), slice(0, None))
    assert (error <= slack).all()
    assert error.max() > 0
    tile.settle(48)
    assert not tile.whole.any()
    assert 48 * 32 <= tile.again < 0.03 * scores.numel()


def test_a_bound_too_small_would_be_noticed(monkeypatch):
    """The control: without slack lists do change, so the agreement above is the bound's doing."""
    rng = torch.Generator().manual_seed(9)
    tokens, directions = torch.randn((20_000, 256), generator=rng), torch.randn((64, 256), generator=rng) / 32
    side = table(tokens, vocabulary(20_000), product="bf16")
    want = streaming.top_k(streaming.product(directions, tokens, torch.empty((64, 20_000)), TileBuffer()), 25)

    def found():
        scores = rounded_product(directions, side.rounded, torch.empty((64, 20_000)))
        tile = RoundedTile(side.rounded, side.rows, side.n_kept, directions, 64, scores, TileBuffer())
        tile.settle(25)
        return streaming.top_k(scores, 25)

    for a, b in zip(found(), want, strict=True):
        assert torch.equal(a, b)
    monkeypatch.setattr(RoundedTile, "_slack", lambda self, scores, rows, columns: torch.zeros_like(scores))
    monkeypatch.setattr(RoundedTile, "_wide", lambda self, *args: [])
    assert not torch.equal(found()[1], want[1])


def test_weights_too_large_for_the_dtype_stay_in_fp32():
    tokens = torch.randn((300, 16)) * 1e5
    assert table(tokens, vocabulary(300), product="fp16").rounded is None
    assert table(tokens, vocabulary(300), product="bf16").rounded is not None


def test_one_copy_where_the_checkpoint_is_in_the_products_dtype():
    tokens = torch.randn((300, 16)).bfloat16()
    side = table(tokens, vocabulary(300), product="bf16")
    assert side.rounded is not None and side.rounded.rows is side.rows
    assert not side.rounded.lost.any()


def test_tf32_rounds_to_nearest_even():
    one = 1.0
    step = 2.0**-10
    x = torch.tensor([one, one + step / 2, one + 1.5 * step, one + 0.49 * step, -one - 0.51 * step, 3e38, 1e-45, 0.0])
    want = torch.tensor([one, one, one + 2 * step, one, -one - step, 3e38, 0.0, 0.0])
    found = rounded.round_tf32(x)
    torch.testing.assert_close(found, want, rtol=2.0**-11, atol=0)
    assert torch.equal(found[:5], want[:5])


@pytest.mark.parametrize("kind", ["fp32", "bf16", "tf32"])
def test_numbers_do_not_depend_on_threads_or_tiles(kind):
    rng = torch.Generator().manual_seed(1)
    tokens, directions = torch.randn((12_289, 96), generator=rng), torch.randn((70, 96), generator=rng)
    side = table(tokens, vocabulary(12_289), keep=np.arange(12_289) % 9 != 0, product=kind)
    threads = torch.get_num_threads()
    found = []
    try:
        for n, tile in ((1, 128), (2, 128), (3, 64), (5, 16)):
            torch.set_num_threads(n)
            found.append(token_rows(directions, side, tile=tile))
            assert torch.get_num_threads() == n
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        for name, values in found[0].items():
            np.testing.assert_array_equal(other[name], values, err_msg=name)


def test_selection_without_order_agrees_with_sorting():
    x = torch.randn((5, 3000))
    values, columns = streaming.best(x, 100)
    assert torch.equal(values, x.sort(1, descending=True).values[:, :100])
    assert torch.equal(x.gather(1, columns), values)
    assert TokensDefinition().k_show == 25
