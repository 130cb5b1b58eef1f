"""The tile: slices, row counts, selection with ties, cancelling, memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.analysis.helpers import table, vocabulary
from wbtui.analysis import streaming
from wbtui.analysis.streaming import TileBuffer
from wbtui.analysis.sweep import Sweep
from wbtui.analysis.tokens import token_rows
from wbtui.errors import Cancelled


@pytest.mark.parametrize("n_tokens", [1, 5, 64, 4096, 4097, 9001])
@pytest.mark.parametrize("dim", [33, 192])
def test_sliced_and_whole_products_agree_to_the_bit(n_tokens, dim):
    rng = torch.Generator().manual_seed(n_tokens)
    tokens, directions = torch.randn((n_tokens, dim), generator=rng), torch.randn((128, dim), generator=rng)
    whole = torch.mm(directions, tokens.T)
    for width in (448, 4096):
        out = torch.empty_like(whole)
        streaming.product(directions, tokens, out, TileBuffer(), width=width)
        assert torch.equal(out, whole), width


def test_slices_cover_once_and_are_never_slivers():
    for n in (1, 63, 4096, 4097, 8193, 256_000, 262_145):
        bounds = streaming.slices(n)
        assert [a for a, _ in bounds] == [0, *[b for _, b in bounds[:-1]]]
        assert bounds[-1][1] == n
        assert max(b - a for a, b in bounds) <= streaming.SLICE
        assert len(bounds) == 1 or min(b - a for a, b in bounds) > 1024


@pytest.mark.parametrize("rows", [1, 3, 8, 9, 40, 64, 127])
def test_a_row_does_not_depend_on_its_company(rows):
    rng = torch.Generator().manual_seed(7)
    tokens, directions = torch.randn((5000, 192), generator=rng), torch.randn((128, 192), generator=rng)
    side = table(tokens, vocabulary(5000), keep=np.arange(5000) % 7 != 0, centre_values=True)
    whole = token_rows(directions, side, top_cos=True)
    part = token_rows(directions[:rows], side, top_cos=True)
    tiled = token_rows(directions, side, top_cos=True, tile=max(16, rows // 16 * 16))
    for name in whole:
        np.testing.assert_array_equal(part[name], whole[name][:rows], err_msg=name)
        np.testing.assert_array_equal(tiled[name], whole[name], err_msg=name)


@pytest.mark.parametrize("n", [1, 2, 30, 127, 1000, 4099, 20_000])
@pytest.mark.parametrize("levels", [1, 3, 40, 10_000])
@pytest.mark.parametrize("largest", [True, False])
def test_selection_with_ties(n, levels, largest):
    rng = np.random.default_rng(n * levels)
    x = rng.integers(-levels, levels, size=(9, n)).astype(np.float32)
    # One row whose cut value sits in the last block, one that is all equal.
    x[0] = 0.0
    x[1] = -levels if largest else levels
    x[1, -1:] = levels if largest else -levels
    for k in (1, 7, 48):
        values, columns = streaming.top_k(torch.from_numpy(x), k, largest=largest)
        order = np.lexsort((np.broadcast_to(np.arange(n), x.shape), -x if largest else x), axis=1)[:, :k]
        np.testing.assert_array_equal(columns.numpy(), order)
        np.testing.assert_array_equal(values.numpy(), np.take_along_axis(x, order, 1))


@pytest.mark.parametrize("off", [None, 0.0, 1e-4, -0.5])
def test_moments_with_a_mean_far_from_zero(off):
    """GIVEN the mean beforehand, even half a unit off, THEN what it leaves over is put right."""
    rng = np.random.default_rng(0)
    x = (rng.standard_gamma(2.0, size=(8, 30_000)) + 400).astype(np.float32)
    about = None if off is None else torch.from_numpy((x.astype(np.float64).mean(1) + off).astype(np.float32))
    found = streaming.moments(torch.from_numpy(x), TileBuffer(), about=about)
    y = x.astype(np.float64)
    z = (y - y.mean(1, keepdims=True)) / y.std(1, keepdims=True)
    np.testing.assert_allclose(found.mean, y.mean(1), rtol=1e-9)
    np.testing.assert_allclose(found.std, y.std(1), rtol=1e-6)
    np.testing.assert_allclose(found.skew, (z**3).mean(1), rtol=1e-5)
    np.testing.assert_allclose(found.kurt, (z**4).mean(1), rtol=1e-5)


@pytest.mark.parametrize(
    ("n", "kept", "k"), [(700, 650, 5), (9000, 8811, 39), (5000, 5000, 1), (300, 20, 39), (64, 64, 60)]
)
def test_what_is_taken_on_the_way_is_what_the_whole_tile_says(n, kept, k):
    """GIVEN scores with many equal ones and a mean far off, slice by slice in any order, THEN lists and ties are those
    of the whole rows, and moments those of float64."""
    rng = np.random.default_rng(n)
    x = torch.from_numpy(rng.integers(-40, 40, size=(80, n)).astype(np.float32) + 300)
    about = x[:, :kept].double().mean(1).float()
    slices = streaming.slices(n, 1024)
    sweep = Sweep(x, kept, slices, about, k + 1)
    for j in rng.permutation(len(slices)):
        sweep.take(slices[j][0], TileBuffer())
    for rows, real in ((slice(0, 32), 32), (slice(64, 80), 11)):
        taken, mine = sweep.rows(rows), x[rows, :kept]
        for largest in (True, False):
            found = streaming.top_k(mine[:real], k, largest=largest, found=taken.best(real, largest=largest))
            for ours, want in zip(found, streaming.top_k(mine[:real], k, largest=largest), strict=True):
                np.testing.assert_array_equal(ours, want)
        y = mine.double()
        np.testing.assert_allclose(taken.moments().mean, y.mean(1), rtol=1e-9)
        np.testing.assert_allclose(taken.moments().std, y.std(1, correction=0), rtol=1e-6)
        z = (y - y.mean(1, keepdim=True)) / y.std(1, correction=0, keepdim=True)
        np.testing.assert_allclose(taken.moments().kurt, (z**4).mean(1), rtol=1e-5)


def test_entropy_of_a_saturated_row_is_finite():
    x = torch.zeros((8, 5000))
    x[:, 17] = 70.0
    rate = torch.full((8,), 70.0), torch.full((8,), 5.0).double()
    [(found, partition)] = streaming.softmax_entropies(x, [rate], TileBuffer())
    assert torch.isfinite(found).all()
    assert float(found[0]) == pytest.approx(0.0, abs=1e-12)
    assert float(partition[0]) == pytest.approx(1.0)


@pytest.mark.parametrize("known", [True, False])
def test_exponents_below_what_fp32_holds_in_full_are_never_taken(monkeypatch, known):
    """A feature that is one token's direction has the rest of the vocabulary a hundred powers of e down, where a CPU is
    twenty times slower: they are raised to where it is not, which no sum shows."""
    x = torch.randn((32, 5000), generator=torch.Generator().manual_seed(0))
    x[:16, 3] = 60.0
    lowest, real = [], streaming.power
    monkeypatch.setattr(streaming, "power", lambda y, out: lowest.append(float(y.min())) or real(y, out=out))
    rates = [(x.amax(1), torch.full((32,), 2.0).double()), (x.amin(1), torch.full((32,), -2.0).double())]
    span = (x.amax(1) - x.amin(1)).double() if known else None
    found = streaming.softmax_entropies(x, rates, TileBuffer(), span=span)
    assert min(lowest) >= streaming.DEEPEST
    for (entropy, partition), (peak, rate) in zip(found, rates, strict=True):
        y = (x.double() - peak[:, None]) * rate[:, None]
        p = y.softmax(1)
        np.testing.assert_allclose(partition, y.exp().sum(1), rtol=1e-6)
        np.testing.assert_allclose(entropy, -(p * y.log_softmax(1)).sum(1), rtol=1e-6, atol=1e-9)


def test_cancelled_within_one_slice():
    """GIVEN a stop flag that goes up during the second slice THEN the third one is never computed."""
    width = streaming.SLICE
    tokens, directions = torch.ones((width * 5, 8)), torch.ones((8, 8))
    out = torch.full((8, width * 5), -1.0)
    polls = []

    def stop() -> bool:
        polls.append(1)
        return len(polls) > 2

    with pytest.raises(Cancelled):
        streaming.product(directions, tokens, out, TileBuffer(), stop=stop)
    assert (out[:, : width * 2] == 8.0).all()
    assert (out[:, width * 2 :] == -1.0).all()


def test_every_poll_of_a_run_can_cancel_it():
    n = 5000
    side = table(torch.randn((n, 8)), vocabulary(n), keep=np.arange(n) > 5)
    directions = torch.randn((20, 8))
    polls = []
    token_rows(directions, side, tile=8, stop=lambda: bool(polls.append(1)))
    total = len(polls)
    assert total > 3 * (2 + 3)
    for last in range(1, total + 1, 3):
        seen = []

        def stop(seen=seen, last=last) -> bool:
            seen.append(1)
            return len(seen) >= last

        with pytest.raises(Cancelled):
            token_rows(directions, side, tile=8, stop=stop)
        assert len(seen) == last


def test_memory_is_one_tile():
    n = 6000
    side = table(torch.randn((n, 16)), vocabulary(n), keep=np.arange(n) > 5)
    buffer = TileBuffer()
    done = []
    token_rows(torch.randn((300, 16)), side, buffer=buffer, progress=lambda a, b: done.append((a, b)))
    assert buffer.nbytes <= 4 * streaming.TILE * (n + 2 * streaming.CHUNK)
    assert done == [(256, 300), (300, 300)]
