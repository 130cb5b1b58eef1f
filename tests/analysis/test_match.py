"""Matching two dictionaries: closed forms, a dense float64 reference, random directions, stopping and going on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from wbtui.analysis.assignment import assignment
from wbtui.analysis.match import Dictionary, Progressing, mutual, random_rows
from wbtui.errors import Cancelled


def dictionary(rows: np.ndarray | torch.Tensor, centre: bool = False) -> Dictionary:
    tensor = torch.as_tensor(rows, dtype=torch.float32)
    return Dictionary(lambda start, stop: tensor[start:stop], len(tensor), centre)


def random(n: int, d: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d))


def dense(a: np.ndarray, b: np.ndarray, centre: bool) -> np.ndarray:
    """All cosines in float64; -inf where a row has no direction."""

    def unit(x: np.ndarray) -> np.ndarray:
        x = np.asarray(x, dtype=np.float32).astype(np.float64)
        if centre:
            x = x - x.mean(1, keepdims=True)
        length = np.linalg.norm(x, axis=1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            return x / length

    cosines = unit(a) @ unit(b).T
    return np.where(np.isfinite(cosines), cosines, -np.inf)


@pytest.mark.parametrize("centre", [False, True])
@pytest.mark.parametrize(("tile", "block"), [(16, 16), (48, 64), (512, 16384)])
def test_equals_the_dense_reference(centre: bool, tile: int, block: int) -> None:
    a, b = random(90, 24, 1) + 0.5, random(133, 24, 2) - 0.3
    a[7], b[11], b[12] = 0.0, np.nan, 0.0
    if centre:
        a[8] = 2.0  # all mean: nothing of it reaches a LayerNorm reader
    want = dense(a, b, centre)
    if centre:
        want[8] = -np.inf
    found = mutual(dictionary(a, centre), dictionary(b, centre), n_null=0, seed=0, tile=tile, block=block)
    for name, cosines in (("a", want), ("b", want.T)):
        best = cosines.max(1)
        good = np.isfinite(best)
        assert found[f"{name}.id"].dtype == np.int32
        assert np.isnan(found[f"{name}.cos"]).tolist() == (~good).tolist()
        assert found[f"{name}.cos"][good] == pytest.approx(best[good], abs=2e-6)
        assert found[f"{name}.id"][~good].tolist() == [-1] * int((~good).sum())
        assert found[f"{name}.id"][good].tolist() == cosines.argmax(1)[good].tolist()


@pytest.mark.parametrize(("tile", "block"), [(64, 64), (72, 200), (1024, 16384)])
@pytest.mark.parametrize("shape", [(150, 230), (70, 63), (129, 1000)])
def test_of_equal_cosines_the_smallest_number_wins(tile: int, block: int, shape: tuple[int, int]) -> None:
    """Rows of +-1/4 at width 16: every cosine is an exact multiple of 1/8, and most of the largest are shared."""
    rng = np.random.default_rng(3)
    a, b = (rng.choice([-1.0, 1.0], (n, 16)) for n in shape)
    found = mutual(dictionary(a), dictionary(b), n_null=0, seed=0, tile=tile, block=block)
    cosines = a @ b.T / 16
    assert (np.sort(cosines, 1)[:, -1] == np.sort(cosines, 1)[:, -2]).mean() > 0.3
    assert found["a.id"].tolist() == cosines.argmax(1).tolist()
    assert found["b.id"].tolist() == cosines.argmax(0).tolist()
    assert found["a.cos"].tolist() == cosines.max(1).tolist()
    assert found["b.cos"].tolist() == cosines.max(0).tolist()


def test_numbers_do_not_depend_on_threads() -> None:
    a, b = random(2000, 64, 20), random(3000, 64, 21)
    threads = torch.get_num_threads()
    found = []
    for count in (1, 3):
        torch.set_num_threads(count)
        try:
            found.append(mutual(dictionary(a), dictionary(b), n_null=64, seed=0))
        finally:
            torch.set_num_threads(threads)
    for name, values in found[0].items():
        assert np.array_equal(values, found[1][name]), name


def test_itself_permuted_and_rescaled_is_wholly_mutual_at_cosine_one() -> None:
    a = random(700, 64, 3)
    rng = np.random.default_rng(4)
    order = rng.permutation(700)
    b = a[order] * rng.uniform(0.01, 100, (700, 1))
    found = mutual(dictionary(a), dictionary(b), n_null=16, seed=0, tile=64, block=256)
    inverse = np.argsort(order)
    assert found["a.id"].tolist() == inverse.tolist()
    assert found["b.id"].tolist() == order.tolist()
    assert found["a.cos"] == pytest.approx(np.ones(700), abs=1e-6)
    assert found["b.cos"] == pytest.approx(np.ones(700), abs=1e-6)
    assert found["a.cos"].max() <= 1.0


def test_a_random_dictionary_is_what_the_random_figure_says() -> None:
    """Unit normal rows are isotropic directions: their nearest cosines and the null's have one distribution."""
    a, b = random(2000, 48, 5), random(1500, 48, 6)
    found = mutual(dictionary(a), dictionary(b), n_null=1000, seed=1)
    for side in ("a", "b"):
        real, null = found[f"{side}.cos"], found[f"null.isotropic.{side}"]
        assert np.median(real) == pytest.approx(np.median(null), abs=0.01)
        assert np.quantile(real, 0.99) == pytest.approx(np.quantile(null, 0.99), abs=0.03)


def test_random_rows_have_the_covariance_that_they_name() -> None:
    scale = np.linspace(0.2, 3, 12)
    a, b = random(4000, 12, 7) * scale, random(3000, 12, 8)
    rows = random_rows(dictionary(a), dictionary(b), 6000, 0, torch.device("cpu"), block=512).double().numpy()
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(len(rows)), abs=1e-6)
    units = a / np.linalg.norm(a, axis=1, keepdims=True)
    draw = np.random.default_rng(0).multivariate_normal(np.zeros(12), units.T @ units / len(units), 20000)
    draw /= np.linalg.norm(draw, axis=1, keepdims=True)
    want, got = (draw**2).mean(0), (rows[6000:12000] ** 2).mean(0)
    assert got == pytest.approx(want, rel=0.08, abs=0.003)
    assert (rows[:6000] ** 2).mean(0) == pytest.approx(np.full(12, 1 / 12), rel=0.08)


def test_directions_made_of_parts_of_a_wide_dictionary_have_the_covariance_of_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows 0, 3, 6 … lie along other axes than rows 1, 4, 7 …: each direction sees a third of them, all see all."""
    monkeypatch.setattr("wbtui.analysis.match.DRAWN", 300)
    a, b = random(999, 12, 7), random(500, 12, 8)
    for part in range(3):
        a[part::3] *= np.where(np.arange(12) // 4 == part, 3.0, 0.3)
    rows = (
        random_rows(dictionary(a), dictionary(b), 3000, 0, torch.device("cpu"), block=128).double().numpy()[3000:6000]
    )
    units = a / np.linalg.norm(a, axis=1, keepdims=True)
    assert (rows**2).mean(0) == pytest.approx((units**2).mean(0), rel=0.12)
    for part in range(3):  # each third has its own part's
        assert (rows[part::3] ** 2).mean(0) == pytest.approx((units[part::3] ** 2).mean(0), rel=0.2, abs=0.02)


def test_a_stopped_pass_goes_on_where_it_was_and_finds_the_same() -> None:
    a, b = dictionary(random(300, 16, 9)), dictionary(random(200, 16, 10))
    options = {"n_null": 32, "seed": 2, "tile": 32, "block": 64}
    whole = mutual(a, b, **options)
    state, calls, shares = Progressing(), 0, []

    def stop() -> bool:
        nonlocal calls
        calls += 1
        return calls % 37 == 0

    for _ in range(100):
        try:
            found = mutual(a, b, **options, stop=stop, progress=shares.append, state=state)
            break
        except Cancelled:
            continue
    else:
        raise AssertionError("it never came to an end")
    assert calls > 40
    assert shares == sorted(shares)
    assert len(shares) == 10 * 4
    for name, values in whole.items():
        assert np.array_equal(found[name], values, equal_nan=True), name


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(2, 9), st.integers(0, 99))
def test_mutual_partners_agree_on_their_cosine(n: int, m: int, d: int, seed: int) -> None:
    found = mutual(
        dictionary(random(n, d, seed)), dictionary(random(m, d, seed + 1)), n_null=0, seed=0, tile=16, block=16
    )
    back = found["b.id"][found["a.id"]]
    both = back == np.arange(n)
    assert both.any(), "the largest of all cosines is always mutual"
    assert found["a.cos"][both] == pytest.approx(found["b.cos"][found["a.id"][both]], abs=1e-6)


@pytest.mark.parametrize(("n", "m"), [(30, 50), (50, 30)])
def test_the_assignment_is_scipys_on_dense_cosines(n: int, m: int) -> None:
    a, b = random(n, 8, 11), random(m, 8, 12)
    b[3] = 0.0
    cost = np.empty((min(n, m), max(n, m)))
    found = assignment(dictionary(a), dictionary(b), room=lambda *_: cost, solve=lambda: linear_sum_assignment(cost))
    cosines = dense(a, b, False)
    x, y = linear_sum_assignment(np.where(np.isfinite(cosines), cosines, 0.0), maximize=True)
    want = {int(i): int(j) for i, j in zip(x, y, strict=True) if j != 3}
    got = {int(i): int(j) for i, j in enumerate(found["assign.id"]) if j >= 0}
    assert sum(cosines[i, j] for i, j in got.items()) == pytest.approx(sum(cosines[i, j] for i, j in want.items()))
    assert all(found["assign.cos"][i] == pytest.approx(cosines[i, j], abs=1e-6) for i, j in got.items())
    assert len(set(got.values())) == len(got)
