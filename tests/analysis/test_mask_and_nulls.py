"""The token mask's neighbour counts, and random directions."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch

from wbtui.analysis import mask, nulls
from wbtui.definitions import MaskDefinition
from wbtui.errors import Cancelled, UsageError, WeightsError

SAMPLED = MaskDefinition(exact_below=100, sample=800, seed=3)


def clustered(n: int, size: int, seed: int = 0) -> torch.Tensor:
    """Random rows, the first ``size`` of them one tight cluster, row ``size`` zero after centring is not special."""
    rng = torch.Generator().manual_seed(seed)
    rows = torch.randn((n, 24), generator=rng)
    rows[:size] = 3 * torch.randn(24, generator=rng) + 0.1 * torch.randn((size, 24), generator=rng)
    return rows


def brute_force(rows: torch.Tensor, cut: float) -> np.ndarray:
    x = rows.double().numpy()
    x = x - x.mean(0)
    norms = np.linalg.norm(x, axis=1)
    unit = np.divide(x, norms[:, None], out=np.zeros_like(x), where=norms[:, None] > 0)
    near = unit @ unit.T > cut
    np.fill_diagonal(near, False)
    return near.sum(1)


@pytest.mark.parametrize("n", [40, 700, 4500])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_exact_counts(n, dtype):
    rows = clustered(n, 20).to(dtype)
    definition = MaskDefinition(cut=0.5)
    found = mask.neighbour_counts(rows, 0, n, definition)
    np.testing.assert_array_equal(found, brute_force(rows, 0.5))
    assert found.dtype == np.int32
    assert (found[:20] >= 19).all()
    for start, end in ((0, 1), (3, 37), (n - 5, n), (7, 7)):
        np.testing.assert_array_equal(mask.neighbour_counts(rows, start, end, definition), found[start:end])


def test_a_token_is_not_its_own_neighbour_and_zero_rows_have_none():
    rows = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    assert mask.neighbour_counts(rows, 0, 4, MaskDefinition()).tolist() == [0, 0, 0, 0]
    twins = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert mask.neighbour_counts(twins, 0, 4, MaskDefinition()).tolist() == [1, 1, 0, 0]


def test_sampled_counts_agree_with_exact_ones():
    rows = clustered(3000, 150)
    exact = mask.neighbour_counts(rows, 0, 3000, MaskDefinition())
    found = mask.neighbour_counts(rows, 0, 3000, SAMPLED)
    assert not mask.is_exact(3000, SAMPLED)
    assert ((exact >= 10) == (found >= 10)).mean() > 0.999
    assert np.median(abs(found[:150] - exact[:150]) / exact[:150]) < 0.3
    np.testing.assert_array_equal(found[100:900], mask.neighbour_counts(rows, 100, 900, SAMPLED))
    other = mask.neighbour_counts(rows, 0, 3000, dataclasses.replace(SAMPLED, seed=4))
    assert (other != found).any()


def test_a_sample_as_large_as_the_vocabulary_is_exact():
    rows = clustered(600, 30)
    everything = MaskDefinition(exact_below=100, sample=600)
    np.testing.assert_array_equal(mask.neighbour_counts(rows, 0, 600, everything), brute_force(rows, 0.7))


def test_one_hit_in_a_sample_never_masks():
    definition = MaskDefinition(exact_below=10, sample=100)
    found = mask.estimate(np.array([0, 1, 2, 5]), np.array([False, False, False, True]), 10_001, definition)
    assert found.tolist() == [0, 9, 200, round(5 * 10_000 / 99)]


def test_mask_stops_and_refuses():
    with pytest.raises(Cancelled):
        mask.neighbour_counts(clustered(500, 5), 0, 500, MaskDefinition(), stop=lambda: True)
    bad = clustered(500, 5)
    bad[3, 3] = float("inf")
    with pytest.raises(WeightsError):
        mask.neighbour_counts(bad, 0, 500, MaskDefinition())


def dictionary(n: int = 400, dim: int = 12) -> torch.Tensor:
    rng = torch.Generator().manual_seed(1)
    return torch.randn((n, dim), generator=rng) @ torch.randn((dim, dim), generator=rng)


@pytest.mark.parametrize("kind", nulls.KINDS)
def test_directions_are_named_by_kind_seed_and_n(kind):
    rows = dictionary()
    draw = {"d_model": 12, "rows": rows}
    whole = nulls.directions(kind, 100, 0, **draw)
    assert whole.shape == (100, 12)
    assert whole.dtype == torch.float32
    np.testing.assert_allclose(whole.norm(dim=1), 1.0, rtol=1e-6)
    assert torch.equal(whole, nulls.directions(kind, 100, 0, **draw))
    for start, end in ((0, 1), (17, 64), (99, 100), (40, 40)):
        part = nulls.directions(kind, 100, 0, start=start, end=end, **draw)
        np.testing.assert_allclose(part, whole[start:end], atol=1e-7)
    assert not torch.allclose(whole, nulls.directions(kind, 100, 1, **draw))
    blocks = nulls.directions(kind, 100, 0, d_model=12, rows=lambda: rows.split(37), axes=nulls.spectrum(rows))
    np.testing.assert_allclose(blocks, whole, atol=1e-6)
    others = [nulls.directions(k, 100, 0, **draw) for k in nulls.KINDS if k != kind]
    assert all(not torch.allclose(whole, other, atol=1e-2) for other in others)


def test_spectrum_is_the_second_moment():
    rows = dictionary(1500)
    rows[5], rows[9] = 0.0, float("nan")
    axes = nulls.spectrum(lambda: rows.split(100))
    good = np.setdiff1d(np.arange(1500), [5, 9])
    np.testing.assert_array_equal(axes.used, good)
    x = rows[torch.from_numpy(good)].double().numpy()
    rebuilt = (axes.axes * axes.values) @ axes.axes.T
    np.testing.assert_allclose(rebuilt, x.T @ x / len(good), rtol=1e-9, atol=1e-9)
    with pytest.raises(WeightsError):
        nulls.spectrum(torch.zeros((4, 3)))


def test_decoder_cov_has_the_dictionary_s_covariance():
    rows = dictionary(800, 6)
    n = 40_000
    found = nulls.directions("decoder_cov", n, 0, rows=rows).double().numpy()
    # The same law drawn another way: numpy's generator through the Cholesky factor, then unit length.
    w = rows.double().numpy()
    root = np.linalg.cholesky(w.T @ w / len(w))
    drawn = np.random.default_rng(0).standard_normal((n, 6)) @ root.T
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    np.testing.assert_allclose(found.T @ found / n, drawn.T @ drawn / n, atol=0.012)
    assert abs(found.mean(0)).max() < 0.02
    isotropic = nulls.directions("isotropic", n, 0, d_model=6).double().numpy()
    np.testing.assert_allclose(isotropic.T @ isotropic / n, np.eye(6) / 6, atol=0.01)


def test_fewer_rows_than_dimensions():
    rows = dictionary(4, 12)
    found = nulls.directions("decoder_cov", 50, 0, rows=rows)
    assert torch.isfinite(found).all()
    span = torch.linalg.qr(rows.T.double())[0]
    np.testing.assert_allclose((found.double() @ span).norm(dim=1), 1.0, atol=1e-6)


@pytest.mark.parametrize("n", [60, 400, 1000])
def test_sign_flip_keeps_the_coordinates_in_the_principal_axes(n):
    rows = dictionary()
    found = nulls.directions("sign_flip", n, 0, rows=rows).double().numpy()
    axes = np.linalg.eigh((rows.double().T @ rows.double() / len(rows)).numpy())[1]
    w = rows.double().numpy()
    plain = abs(w @ axes / np.linalg.norm(w, axis=1, keepdims=True))
    gap = abs(abs(found @ axes)[:, None, :] - plain[None]).max(2)
    source = gap.argmin(1)
    assert gap.min(1).max() < 1e-6
    assert len(np.unique(source)) == min(n, len(rows)) if n <= len(rows) else len(np.unique(source)) == len(rows)
    signs = np.sign(found @ axes) * np.sign((w @ axes)[source])
    assert abs((signs > 0).mean() - 0.5) < 0.08
    assert (signs.std(1) > 0).mean() > 0.95


def test_wrong_requests():
    with pytest.raises(UsageError):
        nulls.directions("shuffled", 5, 0, d_model=3)
    with pytest.raises(UsageError):
        nulls.directions("isotropic", 5, 0, d_model=3, start=2, end=9)
    with pytest.raises(Cancelled):
        nulls.directions("decoder_cov", 5, 0, rows=dictionary(), stop=lambda: True)


GROWTH = """
from pathlib import Path
import numpy as np
import torch
from wbtui.analysis import nulls

torch.set_num_threads(1)
base = np.random.default_rng(0).standard_normal((64, 2048), dtype=np.float32)
seen = []

def own():
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
    seen.append(int(line.split()[1]) / 1024)

def rows(blocks):
    for i in range(blocks):  # as an encoder is read: columns of a mapped file
        yield torch.from_numpy(np.array(base.T, order="C", copy=True))
        own()

def peak(blocks):
    seen.clear()
    for kind in ("decoder_cov", "sign_flip"):
        nulls.directions(kind, 500, 0, rows=lambda: rows(blocks))
    return max(seen)

few = peak(16)
print(peak(256) - few)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_dictionary():
    """Of 524,288 rows instead of 32,768 a few bytes each stay (their numbers, 8 MB), not the 126 MB of the rows, nor
    the half of that which an allocator takes that cannot use the place of what has gone."""
    said = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True).stdout
    assert float(said) < 12
