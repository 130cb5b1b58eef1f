"""What must hold for any weights: permutation, scale, centring, bad rows."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.analysis.helpers import dyadic, table, vocabulary
from wbtui import schema
from wbtui.analysis.features import feature_rows
from wbtui.analysis.tokens import token_rows
from wbtui.definitions import TokensDefinition

DEFINITION = TokensDefinition(k_show=10)
SLOW = settings(max_examples=20, deadline=None)
SEEDS = st.integers(0, 10_000)


@SLOW
@given(SEEDS, st.integers(30, 900))
def test_permuting_tokens_permutes_ids(seed, n):
    rng = np.random.default_rng(seed)
    tokens, directions = dyadic(rng, n, 12), dyadic(rng, 5, 12)
    vocab, order = vocabulary(n, seed), rng.permutation(n)
    moved = {k: (np.asarray(v, dtype=object)[order].tolist() if k == "norms" else v[order]) for k, v in vocab.items()}
    a = token_rows(directions, table(tokens, vocab, DEFINITION))
    b = token_rows(directions, table(tokens[order], moved, DEFINITION))
    np.testing.assert_array_equal(a["top_values"], b["top_values"])
    back = order[b["top_ids"]]
    for i, values in enumerate(a["top_values"]):
        # A value that occurs once in the list, and is not the one where the list is cut, names one token.
        single = np.array([(values == v).sum() == 1 and v != values[-1] for v in values])
        np.testing.assert_array_equal(a["top_ids"][i][single], back[i][single])
    for name in ("z_max", "z_min", "z_10", "h_kappa", "skew", "kurt"):
        np.testing.assert_allclose(a[name], b[name], rtol=1e-5, atol=1e-5, err_msg=name)


@SLOW
@given(SEEDS, st.integers(-20, 20), st.floats(1e-3, 1e3))
def test_scaling_the_decoder_changes_nothing(seed, power, factor):
    rng = np.random.default_rng(seed)
    tokens, d = dyadic(rng, 300, 16), dyadic(rng, 9, 16)
    d[:, 0] += 1.0
    side = table(tokens, vocabulary(300), DEFINITION)
    kwargs = {"gain": torch.rand(16) + 0.5, "centre": True}
    a = feature_rows(d, None, side, None, **kwargs)
    b = feature_rows(d * 2.0**power, None, side, None, **kwargs)
    for name in a:
        if name != "d_norm":
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    c = feature_rows(d * factor, None, side, None, **kwargs)
    for name in ("writes.z_max", "writes.h_kappa", "writes.top_values", "against.z_max"):
        np.testing.assert_allclose(a[name], c[name], rtol=1e-4, atol=1e-5, err_msg=name)


@SLOW
@given(SEEDS, st.integers(-30, 30))
def test_scaling_the_encoder_scales_values_only(seed, power):
    rng = np.random.default_rng(seed)
    side = table(dyadic(rng, 300, 16), vocabulary(300), DEFINITION, scale=3.0, centre_values=True)
    e = dyadic(rng, 9, 16)
    a, b = token_rows(e, side, top_cos=True), token_rows(e * 2.0**power, side, top_cos=True)
    for name in a:
        lengths = name in ("top_values", "bottom_values", "mean", "std", "masked_best_value")
        np.testing.assert_array_equal(a[name] * 2.0**power if lengths else a[name], b[name], err_msg=name)


@SLOW
@given(SEEDS)
def test_centring_the_vocabulary_leaves_ranks_z_and_entropy(seed):
    rng = np.random.default_rng(seed)
    tokens, directions, shift = dyadic(rng, 500, 16), dyadic(rng, 9, 16), dyadic(rng, 16, span=64)
    vocab = vocabulary(500)
    a = token_rows(directions, table(tokens, vocab, DEFINITION))
    b = token_rows(directions, table(tokens + shift, vocab, DEFINITION))
    c = token_rows(directions, table(tokens, vocab, DEFINITION, centre_values=True))
    for other in (b, c):
        for name in ("top_ids", "bottom_ids", "word_ids", "against.word_ids"):
            np.testing.assert_array_equal(a[name], other[name], err_msg=name)
        for name in ("z_max", "z_min", "z_10", "h_kappa", "delta_h", "word_z", "skew", "cos_tok", "against.h_kappa"):
            np.testing.assert_allclose(a[name], other[name], rtol=1e-4, atol=1e-4, err_msg=name)
    moved = (directions.double() @ shift.double()).numpy()
    np.testing.assert_allclose(b["top_values"] - a["top_values"], np.broadcast_to(moved[:, None], (9, 10)), atol=1e-4)
    np.testing.assert_allclose(c["mean"], 0.0, atol=1e-9)


@SLOW
@given(SEEDS, st.lists(st.tuples(st.integers(0, 19), st.sampled_from(["nan", "inf", "zero"])), min_size=1, max_size=6))
def test_bad_rows_do_not_disturb_others(seed, bad):
    rng = torch.Generator().manual_seed(seed)
    tokens = torch.randn((400, 16), generator=rng)
    d, e = torch.randn((20, 16), generator=rng), torch.randn((20, 16), generator=rng)
    side = table(tokens, vocabulary(400), DEFINITION, keep=np.arange(400) % 9 != 0)
    reads = side.shared(scale=2.0, centre_values=True)
    good = feature_rows(d, e, side, reads, gain=None, centre=False)
    spoilt = d.clone()
    for row, kind in bad:
        spoilt[row] = 0.0
        if kind != "zero":
            spoilt[row, 3] = float(kind)
    found = feature_rows(spoilt, e, side, reads, gain=None, centre=False)
    rows = np.array(sorted({row for row, _ in bad}))
    rest = np.setdiff1d(np.arange(20), rows)
    for name, column in schema.tokens_columns().items():
        np.testing.assert_array_equal(found[name][rest], good[name][rest], err_msg=name)
        if name.startswith(("writes.", "against.")):
            blank = schema.empty(column, len(rows), {"k_show": 10, "k_words": 20})
            np.testing.assert_array_equal(found[name][rows], blank, err_msg=name)
        if name.startswith("reads."):
            np.testing.assert_array_equal(found[name], good[name], err_msg=name)
    kinds = dict(bad)
    flags = {"nan": schema.FLAG_BAD_DECODER, "inf": schema.FLAG_BAD_DECODER, "zero": schema.FLAG_ZERO_DECODER}
    assert [int(found["flags"][row]) for row in rows] == [flags[kinds[int(row)]] for row in rows]
    assert (found["overlap"][rows] == -1).all()
    assert np.isnan(found["selfcos"][rows]).all()
