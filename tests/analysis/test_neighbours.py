"""Nearest features: closed forms, a float64 reference, and what must not depend on tiles."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.analysis.helpers import dyadic
from wbtui.analysis.neighbours import nearest, unit_rows
from wbtui.errors import Cancelled


def reference(a: np.ndarray, b: np.ndarray, k: int, centre: bool, same: bool) -> tuple[np.ndarray, np.ndarray]:
    """By the plain formula in float64, ties by number."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    if centre:
        a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    cosines = a @ b.T / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)
    if same:
        np.fill_diagonal(cosines, -np.inf)
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(cosines, order, 1), order


def run(a, b, k, *, centre=False, itself=None, block=10**9, **more):
    rows, gone = unit_rows(a, centre=centre)
    others = unit_rows(b, centre=centre)
    cosines, ids = nearest(
        rows, gone, zip(others[0].split(block), others[1].split(block), strict=True), k, itself=itself, **more
    )
    return cosines.numpy(), ids.numpy()


def test_closed_form():
    # unit axes, and rows at known angles to them
    others = torch.eye(4)[:3]
    rows = torch.tensor([[3.0, 4.0, 0.0, 0.0], [0.0, 0.0, 0.0, 7.0], [0.0, -2.0, 0.0, 0.0]])
    cosines, ids = run(rows, others, 2)
    np.testing.assert_allclose(cosines, [[0.8, 0.6], [0.0, 0.0], [0.0, 0.0]], atol=1e-7)
    assert ids.tolist() == [[1, 0], [0, 1], [0, 2]], "equal cosines stand by number, and -1 comes last"


def test_a_layernorm_reader_sees_no_mean():
    # the same direction up to its mean: cosine one without it, far from one with it
    d = torch.tensor([[1.0, -1.0, 2.0, -2.0]])
    cosines, _ = run(d + 10.0, d, 1, centre=True)
    assert cosines[0, 0] == pytest.approx(1.0, abs=1e-6)
    cosines, _ = run(d + 10.0, d, 1)
    assert cosines[0, 0] == pytest.approx(10 / math.sqrt(410 * 10), abs=1e-6)
    cosines, ids = run(torch.full((1, 4), 3.3), d, 1, centre=True)
    assert math.isnan(cosines[0, 0]) and ids[0, 0] == -1, "all mean: nothing that a reader sees"


@pytest.mark.parametrize("centre", [False, True])
@pytest.mark.parametrize("same", [False, True])
def test_reference(centre: bool, same: bool):
    rng = np.random.default_rng(3)
    a = torch.from_numpy(rng.normal(size=(150, 24)).astype(np.float32)) + 0.5
    b = a if same else torch.from_numpy(rng.normal(size=(210, 24)).astype(np.float32))
    cosines, ids = run(a, b, 5, centre=centre, itself=0 if same else None)
    expected, order = reference(a.numpy(), b.numpy(), 5, centre, same)
    np.testing.assert_array_equal(ids, order)
    np.testing.assert_allclose(cosines, expected, atol=2e-6)


def test_rows_without_direction():
    rows = torch.tensor([[1.0, 0.0], [0.0, 0.0], [float("nan"), 1.0], [float("inf"), 1.0]])
    cosines, ids = run(rows, rows, 3)
    assert ids.tolist() == [[0, -1, -1], [-1] * 3, [-1] * 3, [-1] * 3], "absent rows have no nearest and are none"
    assert cosines[0, 0] == 1.0 and np.isnan(cosines[0, 1:]).all() and np.isnan(cosines[1:]).all()
    cosines, ids = run(rows[:1], rows[:1], 2, itself=0)
    assert ids.tolist() == [[-1, -1]] and np.isnan(cosines).all(), "a dictionary of one feature has no other"


def test_great_and_small_rows_have_a_direction():
    rows = torch.tensor([[3e38, 3e38], [1e-38, -1e-38]])
    cosines, ids = run(rows, torch.tensor([[1.0, 1.0], [1.0, -1.0]]), 1)
    assert ids[:, 0].tolist() == [0, 1]
    np.testing.assert_allclose(cosines[:, 0], 1.0, atol=1e-6)


@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 70),
    m=st.integers(1, 90),
    block=st.sampled_from([1, 7, 16, 64]),
    tile=st.sampled_from([1, 16, 48]),
    k=st.integers(1, 6),
)
@settings(max_examples=40, deadline=None)
def test_tiles_and_blocks_change_no_id(seed: int, n: int, m: int, block: int, tile: int, k: int):
    rng = np.random.default_rng(seed)
    # few distinct rows of few values: ties everywhere
    a, b = dyadic(rng, n, 4, span=1), dyadic(rng, m, 4, span=1)
    further, _ = run(a, b, k + 1)
    cosines, ids = run(a, b, k)
    again, ids_again = run(a, b, k, block=block, tile=tile)
    np.testing.assert_allclose(cosines, again, atol=1e-6)
    close = np.abs(np.diff(further, axis=1)) < 1e-6  # rounding may swap what is equal, and who comes in last
    np.testing.assert_array_equal(np.isnan(cosines), ids < 0)
    if not close.any():
        np.testing.assert_array_equal(ids, ids_again)


def test_stops_when_told():
    rows = torch.randn(64, 8)
    with pytest.raises(Cancelled):
        run(rows, rows, 1, stop=lambda: True)
