"""One pass over a dictionary: products, spreads and tails against dense float64 and drawn directions."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats

from wbtui.analysis import piece
from wbtui.analysis import scores as scores_module
from wbtui.analysis.flow import FlowThresholds, best_of, flow_class, span
from wbtui.analysis.nulls import directions
from wbtui.analysis.score_pass import BACK, score_columns, score_rows
from wbtui.analysis.scores import LEAST_TAIL, Law, Scores, best
from wbtui.errors import Cancelled, UsageError, WeightsError


def rows_of(n: int, width: int, seed: int, power: float) -> torch.Tensor:
    """Rows whose covariance falls off as the ``-power``-th power of the axis."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.arange(1, width + 1, dtype=torch.float32) ** (-power / 2)
    return torch.randn(n, width, generator=generator) * spread


@pytest.mark.parametrize("centre", [False, True])
@pytest.mark.parametrize("columns", [False, True])
def test_products_lengths_and_spread_are_dense_ones(centre: bool, columns: bool) -> None:
    w = rows_of(333, 24, 0, 0.5)
    w[7], w[9, 3] = 0.0, float("nan")
    q = torch.randn(3, 24, generator=torch.Generator().manual_seed(1)).double()
    if centre:
        q = q - q.mean(1, keepdim=True)
    store = w.T.contiguous()
    if columns:
        found = score_columns(store, q, centre=centre)
    else:
        found = score_rows(lambda: w.split(50), q, centre=centre, n=333)
    again = score_columns(store, q, centre=centre, lengths=found.lengths)
    np.testing.assert_allclose(again.scores, found.scores, atol=1e-5)
    np.testing.assert_allclose(again.tail(again.scores[:, 1], 1), found.tail(found.scores[:, 1], 1), rtol=1e-3)
    x = w.double().numpy()
    x = x - x.mean(1, keepdims=True) if centre else x
    good = np.isfinite(x).all(1) & (x != 0).any(1)
    assert np.array_equal(found.usable, good) and not good[7] and not good[9]
    dense = x @ q.numpy().T
    np.testing.assert_allclose(found.dots[good], dense[good], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.norms[good], np.linalg.norm(x[good], axis=1), rtol=1e-5)
    scores = dense[good] / np.linalg.norm(x[good], axis=1)[:, None]
    np.testing.assert_allclose(found.scores[good], scores, atol=1e-5)
    np.testing.assert_allclose(found.z(found.scores)[good], (scores - scores.mean(0)) / scores.std(0), atol=1e-4)
    covariance = x[good].T @ x[good] / good.sum()
    a = np.einsum("kd,de,ke->k", q.numpy(), covariance, q.numpy())
    np.testing.assert_allclose(found.a, a, rtol=1e-5)
    np.testing.assert_allclose(found.b, ((q.numpy() @ covariance) ** 2).sum(1) / a, rtol=1e-4)
    assert found.trace == pytest.approx(np.trace(covariance), rel=1e-5)
    assert np.isnan(found.scores[[7, 9]]).all()


def test_an_isotropic_tail_is_the_law_of_a_random_cosine() -> None:
    """With C = I / D exactly: P(cos >= s) of a random direction is a Student t of D - 1 degrees."""
    width = 40
    w = torch.eye(width).repeat(8, 1)
    q = torch.nn.functional.normalize(torch.randn(1, width, generator=torch.Generator().manual_seed(0)), dim=1)
    found = score_rows(lambda: [w], q, n=len(w))
    s = np.array([0.05, 0.2, 0.4, 0.6])
    exact = stats.t.sf(s * np.sqrt((width - 1) / (1 - s * s)), width - 1)
    np.testing.assert_allclose(found.tail(s), exact, rtol=0.05)
    np.testing.assert_allclose(found.two_sided(-s), 2 * found.tail(s))
    assert found.two_sided(np.array([0.999]))[0] == LEAST_TAIL  # shown as "less than", not as twice the least


@pytest.mark.parametrize("power", [0.0, 0.6, 1.0])
def test_tails_are_those_of_drawn_directions(power: float) -> None:
    w = rows_of(800, 128, 3, power)
    q = torch.randn(1, 128, generator=torch.Generator().manual_seed(4))
    found = score_rows(lambda: w.split(128), q, n=800)
    drawn = (directions("decoder_cov", 40_000, 5, rows=w) @ q.T)[:, 0].double().numpy()
    for share in (0.3, 0.05, 0.01, 0.001):
        at = float(found.tail(np.quantile(drawn, 1 - share)))
        # a factor of two at 1 in 1,000 where the dictionary has but a dozen dimensions, and then too careful
        slack = 0.15 if share >= 0.01 else 0.35 if power < 1 else 1.0
        assert share * (1 - min(slack, 0.35)) <= at <= share * (1 + slack), (share, at)


@pytest.mark.parametrize("columns", [False, True])
def test_a_wide_dictionary_takes_its_law_from_a_part(columns: bool) -> None:
    n = 3 * BACK
    w = rows_of(n, 48, 8, 0.5)
    q = torch.randn(2, 48, generator=torch.Generator().manual_seed(9))
    found = score_columns(w.T.contiguous(), q) if columns else score_rows(lambda: w.split(256), q, n=n)
    x, y = w.double().numpy(), q.double().numpy()
    np.testing.assert_allclose(found.dots, x @ y.T, atol=1e-4)
    covariance = x.T @ x / n
    a = np.einsum("kd,de,ke->k", y, covariance, y)
    np.testing.assert_allclose(found.a, a, rtol=1e-5)
    np.testing.assert_allclose(found.b, ((y @ covariance) ** 2).sum(1) / a, rtol=0.1)
    drawn = (directions("decoder_cov", 20_000, 5, rows=w) @ q.T)[:, 1].double().numpy()
    for share in (0.3, 0.05, 0.01):
        assert float(found.tail(np.quantile(drawn, 1 - share), 1)) == pytest.approx(share, rel=0.3)


def test_a_dictionary_of_few_dimensions_has_no_tail() -> None:
    w = rows_of(500, 64, 0, 4.0)
    q = torch.zeros(1, 64)
    q[0, :2] = 1
    assert np.isnan(score_rows(lambda: [w], q, n=500).tail(np.array([0.5]))).all()


def test_nothing_usable_and_a_stop() -> None:
    with pytest.raises(WeightsError, match="finite, non-zero row"):
        score_rows(lambda: [torch.zeros(4, 8)], torch.ones(1, 8))
    with pytest.raises(UsageError, match="without rows"):
        score_rows(list, torch.ones(1, 8))
    seen = iter([False, False, True])
    with pytest.raises(Cancelled):
        score_rows(lambda: torch.ones(64, 8).split(8), torch.ones(1, 8), stop=lambda: next(seen))


def test_best_first_ties_by_number_and_no_holes() -> None:
    values = np.array([1.0, np.nan, 3.0, 3.0, -5.0, np.inf])
    assert best(values, 3).tolist() == [2, 3, 0]
    assert best(values, 9, largest=False).tolist() == [4, 0, 2, 3]
    draw = np.random.default_rng(0)
    for top in (1, 7, 40, 299, 300):  # by the plain sort, with many ties
        many = np.where(draw.random(300) < 0.1, np.nan, draw.integers(0, 30, 300).astype(float))
        plain = sorted((i for i in range(300) if np.isfinite(many[i])), key=lambda i: (-many[i], i))[:top]
        assert best(many, top).tolist() == plain


@pytest.mark.parametrize(
    ("r", "m", "a", "name"),
    [
        (0.9, 0.1, 0.1, "carried"), (0.9, 0.3, 0.1, "processed"), (0.9, None, 0.3, "processed"),
        (0.1, 0.3, 0.0, "newborn"), (0.1, 0.1, 0.1, "unexplained"), (0.9, None, None, "carried or processed"),
        (0.1, 0.1, None, "newborn or unexplained"), (0.5, 0.0, 0.0, "carried"), (0.49, 0.25, 0.0, "newborn"),
        (None, 0.9, 0.9, "unknown: no dictionary of the stream before"),
    ],
)  # fmt: skip
def test_classes_of_flow(r: float | None, m: float | None, a: float | None, name: str) -> None:
    assert flow_class(r, m, a, FlowThresholds()) == name


def test_flow_thresholds_and_spans() -> None:
    assert flow_class(0.4, 0.1, 0.1, FlowThresholds(r=0.3)) == "carried"
    with pytest.raises(UsageError, match="cosine"):
        FlowThresholds(r=1.5)
    assert span([0.9, 0.6, 0.4, 0.8], 0.5) == 2 and span([], 0.5) == 0 and span([0.9, None], 0.5) == 1
    assert best_of(1000, 1e-6) == pytest.approx(1 - (1 - 1e-6) ** 1000)
    assert best_of(10, 1.0) == 1.0 and np.isnan(best_of(3, float("nan")))


@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("k", [1, 3])
def test_numbers_do_not_depend_on_threads_and_a_stop_ends_the_pass_at_once(columns: bool, k: int) -> None:
    """Large enough for pieces to be shared out; each looks at the flag, and none begins once it is up."""
    n, width = 40_000, 200
    w = rows_of(n, width, 11, 0.5)
    q = torch.randn(k, width, generator=torch.Generator().manual_seed(12))
    store = w.T.contiguous()

    def scored(stop: Callable[[], bool] | None = None) -> Scores:
        if columns:
            return score_columns(store, q, stop=stop)
        return score_rows(lambda: w.split(256), q, n=n, stop=stop)

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = scored()
        torch.set_num_threads(2)
        together, polls = scored(), itertools.count()  # 60 looks at the flag in a whole pass of columns, 157 of rows
        assert all(np.array_equal(getattr(alone, x), getattr(together, x)) for x in ("dots", "norms", "b", "along"))
        assert alone.trace2 == together.trace2
        with pytest.raises(Cancelled):
            scored(lambda: next(polls) >= 5)
    finally:
        torch.set_num_threads(before)
    # five were let in; of those that were handed out already each is refused at most once, and nothing else begins
    assert next(polls) <= 5 + (10 if columns else 32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("k", [1, 3])
def test_compiled_pieces_are_the_plain_functions(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, k: int) -> None:
    """Where this torch compiles nothing the functions run as they stand: the same numbers, and those of float64."""
    w = rows_of(300, 70, 2, 0.5).to(dtype)
    q = torch.randn(k, 70, generator=torch.Generator().manual_seed(3))
    exact = w.double().numpy()

    def all_of(near: int) -> list[np.ndarray]:
        out = []
        for function, stored in ((piece.rows_piece, w), (piece.columns_piece, w.T.contiguous())):
            dot, square, total = torch.zeros(k, 300), torch.zeros(300), torch.zeros(300)
            function(stored, q, dot, square, total, near)
            bare = torch.zeros(k, 300)
            function(stored, q, bare, torch.zeros(0), torch.zeros(0), near)
            assert torch.equal(bare, dot)
            long = square.numpy() if function is piece.rows_piece else square.sqrt().numpy()
            np.testing.assert_allclose(dot.numpy(), q.double().numpy() @ exact.T, atol=1e-4)
            np.testing.assert_allclose(long, np.linalg.norm(exact, axis=1), rtol=1e-6)
            np.testing.assert_allclose(total.numpy(), exact.sum(1), atol=1e-4)
            out += [dot.numpy(), square.numpy(), total.numpy()]
        return out

    compiled = [all_of(near) for near in (32, 4096)]
    for name in ("rows_piece", "columns_piece"):
        made = getattr(piece, name)
        assert inspect.getclosurevars(made).nonlocals["call"] is not made.__wrapped__  # this torch does compile
        monkeypatch.setattr(piece, name, made.__wrapped__)
    for near, found in zip((32, 4096), compiled, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(found, all_of(near), strict=True))


def test_fewer_nodes_are_enough_where_there_are_many_dimensions() -> None:
    draw = np.random.default_rng(0)
    for width, power in ((100, 0.0), (300, 0.6), (2304, 0.6)):
        spread = np.arange(1, width + 1.0) ** -power
        spread /= spread.sum()
        q = draw.standard_normal(width)
        a = (q * q * spread).sum()
        b, along = ((spread * q) ** 2).sum() / a, ((spread * q) ** 2 * spread).sum() / a
        law = Law(a, b, along, 1.0, (spread**2).sum())
        s = np.arange(0.5, 7.0, 0.5) * np.sqrt(a)
        few = law.tail(s)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(scores_module, "FEW_NODES", 48)
            np.testing.assert_allclose(few, Law(a, b, along, 1.0, (spread**2).sum()).tail(s), rtol=1e-4)
