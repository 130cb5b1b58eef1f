"""Whole rows: schema, both sides, flags, overlap, the lone feature."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.analysis.helpers import table, vocabulary
from wbtui import schema
from wbtui.analysis import nulls
from wbtui.analysis.features import feature_rows, instant_row, null_rows
from wbtui.analysis.tokens import output_directions, token_rows
from wbtui.errors import Cancelled, WeightsError, WorkError

N, DIM, ROWS = 1500, 32, 13
WIDTHS = {"k_show": 25, "k_words": 20}


@pytest.fixture(scope="module")
def weights():
    rng = torch.Generator().manual_seed(11)
    d, e = torch.randn((ROWS, DIM), generator=rng), torch.randn((ROWS, DIM), generator=rng)
    return torch.randn((N, DIM), generator=rng) + 0.3, d, e, torch.rand(DIM, generator=rng) + 0.5


def sides(tokens, **more):
    writes = table(tokens, vocabulary(N), keep=np.arange(N) % 11 != 0, **more)
    return writes, writes.shared(scale=5.0, centre_values=True)


def check_schema(rows, columns, n):
    assert set(rows) == set(columns)
    for name, column in columns.items():
        assert rows[name].dtype == np.dtype(column.dtype), name
        assert rows[name].shape == (n, *schema.width_of(column, WIDTHS)), name


def test_rows_are_the_two_sides(weights):
    tokens, d, e, gain = weights
    writes, reads = sides(tokens)
    seen = []
    rows = feature_rows(d, e, writes, reads, gain=gain, centre=True, tile=8, progress=lambda a, b: seen.append((a, b)))
    check_schema(rows, schema.tokens_columns(), ROWS)
    assert seen == [(8, 26), (13, 26), (21, 26), (26, 26)]
    directions, lengths = output_directions(d, gain, True, "folded")
    alone = token_rows(directions, writes, lengths=lengths)
    for name, values in alone.items():
        np.testing.assert_array_equal(rows[name if "." in name else f"writes.{name}"], values)
    for name, values in token_rows(e, reads, want="pos", top_cos=True).items():
        np.testing.assert_array_equal(rows[f"reads.{name}"], values)
    assert (rows["flags"] == 0).all()
    np.testing.assert_allclose(rows["d_norm"], d.norm(dim=1), rtol=1e-6)
    np.testing.assert_allclose(rows["e_norm"], e.norm(dim=1), rtol=1e-6)
    p = np.eye(DIM) - 1.0 / DIM
    x, y = d.double().numpy() @ p, e.double().numpy() @ p
    cosine = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    np.testing.assert_allclose(rows["selfcos"], cosine, rtol=1e-5)
    for i in range(ROWS):
        shared = set(rows["writes.top_ids"][i, :10]) & set(rows["reads.top_ids"][i, :10])
        assert rows["overlap"][i] == len(shared)


def test_overlap_of_a_feature_that_writes_what_it_reads(weights):
    tokens, d, _, _ = weights
    writes, reads = sides(tokens)
    rows = feature_rows(d, d.clone(), writes, reads, gain=None, centre=False)
    assert (rows["overlap"] == 10).all()
    np.testing.assert_allclose(rows["selfcos"], 1.0, rtol=1e-6)


def test_an_encoder_off_the_stream(weights):
    tokens, d, _, gain = weights
    writes, _ = sides(tokens)
    rows = feature_rows(d, None, writes, None, gain=gain, centre=False)
    check_schema(rows, schema.tokens_columns(), ROWS)
    assert (rows["flags"] == schema.FLAG_NO_READS).all()
    assert np.isnan(rows["reads.z_max"]).all()
    assert (rows["reads.top_ids"] == -1).all()
    assert (rows["overlap"] == -1).all()
    assert np.isnan(rows["e_norm"]).all()


def test_bad_encoder_rows(weights):
    tokens, d, e, _ = weights
    writes, reads = sides(tokens)
    e = e.clone()
    e[2], e[4] = 0.0, float("nan")
    rows = feature_rows(d, e, writes, reads, gain=None, centre=False)
    assert rows["flags"].tolist() == [0, 0, schema.FLAG_ZERO_ENCODER, 0, schema.FLAG_BAD_ENCODER] + [0] * 8
    assert np.isnan(rows["reads.z_max"][[2, 4]]).all()
    assert not np.isnan(rows["writes.z_max"]).any()
    assert rows["overlap"][[2, 4]].tolist() == [-1, -1]


def test_a_constant_decoder_row_writes_nothing_under_layer_norm(weights):
    tokens, d, e, gain = weights
    writes, reads = sides(tokens)
    d = d.clone()
    d[3] = 0.7
    centred = feature_rows(d, e, writes, reads, gain=gain, centre=True)
    assert centred["flags"][3] == schema.FLAG_ZERO_DECODER
    assert np.isnan(centred["writes.z_max"][3])
    assert centred["d_norm"][3] > 0
    plain = feature_rows(d, e, writes, reads, gain=gain, centre=False)
    assert plain["flags"][3] == 0
    assert not np.isnan(plain["writes.z_max"][3])


def assert_provisional(one, rows, i):
    for name in rows:
        if rows[name].dtype.kind in "iu":
            np.testing.assert_array_equal(one[name][0], rows[name][i], err_msg=name)
        else:
            np.testing.assert_allclose(one[name][0], rows[name][i], rtol=2e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_lone_feature_equals_its_row(weights, dtype):
    tokens, d, e, gain = weights
    tokens = tokens.to(dtype)
    writes, reads = sides(tokens)
    rows = feature_rows(d, e, writes, reads, gain=gain, centre=True)
    for lazy in (False, True):
        w, r = sides(tokens, lazy=lazy)
        assert w.rows.dtype == (dtype if lazy else torch.float32)
        one = instant_row(d[6], e[6], w, r, gain=gain, centre=True)
        check_schema(one, schema.tokens_columns(), 1)
        assert_provisional(one, rows, 6)
        assert_provisional(instant_row(d[7], e[7], w, r, gain=gain, centre=True), rows, 7)


def test_a_lone_feature_untied_or_bad(weights):
    tokens, d, e, gain = weights
    writes, reads = sides(tokens)
    other = table(tokens.flip(0), vocabulary(N), centre_values=True, lazy=True)
    rows = feature_rows(d, e, writes, other, gain=gain, centre=True)
    assert_provisional(instant_row(d[1], e[1], writes, other, gain=gain, centre=True), rows, 1)
    d = d.clone()
    d[1] = float("nan")
    rows = feature_rows(d, e, writes, reads, gain=gain, centre=True)
    assert_provisional(instant_row(d[1], e[1], writes, reads, gain=gain, centre=True), rows, 1)
    rows = feature_rows(d, e, writes, writes, gain=gain, centre=True)
    assert_provisional(instant_row(d[3], e[3], writes, writes, gain=gain, centre=True), rows, 3)
    rows = feature_rows(d, None, writes, None, gain=gain, centre=True)
    assert_provisional(instant_row(d[2], None, writes, None, gain=gain, centre=True), rows, 2)


def test_null_rows(weights):
    tokens, _, _, gain = weights
    writes, reads = sides(tokens)
    x = nulls.directions("isotropic", 10, 0, d_model=DIM)
    rows = null_rows(x, x, writes, reads, gain=gain, centre=True)
    check_schema(rows, schema.null_columns(), 10)
    features = feature_rows(x, x, writes, reads, gain=gain, centre=True)
    for name in rows:
        np.testing.assert_array_equal(rows[name], features[name], err_msg=name)
    alone = null_rows(x, None, writes, None, gain=gain, centre=True)
    check_schema(alone, schema.null_columns(), 10)
    assert np.isnan(alone["reads.z_max"]).all()


def test_an_unmasked_fp32_matrix_is_not_copied(weights):
    tokens = weights[0]
    side = table(tokens, vocabulary(N))
    assert side.rows.data_ptr() == tokens.data_ptr()
    masked = table(tokens, vocabulary(N), keep=np.arange(N) > 0)
    assert masked.shared(scale=2.0, centre_values=True).rows.data_ptr() == masked.rows.data_ptr()


def test_bad_token_tables_are_refused(weights):
    tokens = weights[0].clone()
    with pytest.raises(WorkError, match="drops every token"):
        table(tokens, vocabulary(N), keep=np.zeros(N, bool))
    with pytest.raises(WeightsError, match="word has 5 entries"):
        table(tokens, {**vocabulary(N), "word": np.zeros(5)})
    tokens[7, 3] = float("nan")
    with pytest.raises(WeightsError, match="NaN"):
        table(tokens, vocabulary(N))
    lazy = table(tokens, vocabulary(N), lazy=True)
    with pytest.raises(WeightsError, match="NaN"):
        instant_row(weights[1][0], None, lazy, None, gain=None, centre=False)


def test_a_lone_feature_can_be_cancelled_and_asked_for_again(weights):
    """GIVEN a cold lazy table WHEN the first pass over it is stopped half way
    THEN nothing of that pass stays: the next one gives the right row."""
    tokens, d, e, gain = weights
    tokens = tokens.repeat(1, 24)
    d, e, gain = d.repeat(1, 24), e.repeat(1, 24), gain.repeat(24)
    writes, reads = sides(tokens.bfloat16(), lazy=True)
    polls = []
    with pytest.raises(Cancelled):
        instant_row(
            d[0], e[0], writes, reads, gain=gain, centre=False, stop=lambda: bool(polls.append(1)) or len(polls) == 2
        )
    assert not writes.has_centre
    eager = sides(tokens.bfloat16())
    rows = feature_rows(d[:1], e[:1], *eager, gain=gain, centre=False)
    assert_provisional(instant_row(d[0], e[0], writes, reads, gain=gain, centre=False), rows, 0)
    assert reads.has_centre


def test_no_rows(weights):
    tokens, d, e, gain = weights
    writes, reads = sides(tokens)
    check_schema(feature_rows(d[:0], e[:0], writes, reads, gain=gain, centre=True), schema.tokens_columns(), 0)


def test_reads_of_a_layer_norm_model_see_no_all_ones_component(weights):
    """Token rows that differ along 1 alone are one and the same to every reader: cosines do not change, and the
    encoder's own direction has cosine one however far it is moved along 1."""
    tokens, _, e, _ = weights
    e = e - e.mean(1, keepdim=True)
    push = torch.randn((N, 1), generator=torch.Generator().manual_seed(5))
    plain = table(tokens, vocabulary(N), centre_values=True, flatten=True)
    moved = table(tokens + 3.0 * push, vocabulary(N), centre_values=True, flatten=True)
    bare = table(tokens + 3.0 * push, vocabulary(N), centre_values=True)
    rows, same, wrong = (token_rows(e, side, want="pos", top_cos=True) for side in (plain, moved, bare))
    np.testing.assert_array_equal(rows["top_ids"], same["top_ids"])
    for name in ("top_cos", "cos_tok"):
        np.testing.assert_allclose(rows[name], same[name], atol=2e-5)
        assert np.nanmax(abs(rows[name] - wrong[name])) > 0.05  # what it was before
    twin = torch.cat([tokens, (40 * e[:1] + 7.0)])
    words = vocabulary(N + 1)
    found = token_rows(e[:1], table(twin, words, centre_values=True, flatten=True), want="pos", top_cos=True)
    assert found["top_ids"][0, 0] == N
    assert found["top_cos"][0, 0] == pytest.approx(1.0, abs=1e-3)
