"""The population page: what is drawn and counted, and what a user does on it."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from tests.features import make
from tests.tui.place import Place, V, columns_with, screen_text, settled, until
from wbtui import schema
from wbtui.features.query import parse
from wbtui.tui.app import WbtuiApp
from wbtui.tui.bins import make_bins
from wbtui.tui.crowd import LABELS, NOISE, Crowd, gather, metric_for, metrics_of
from wbtui.tui.crowd_export import bins_csv, statistics_csv
from wbtui.tui.draw.histogram import GUTTER, Grid, number, percent, plot
from wbtui.tui.draw.line import text_of, width_of
from wbtui.tui.draw.numbers import beside, under
from wbtui.tui.draw.population import make_population, middle_of_rest
from wbtui.tui.screens.main import MainScreen
from wbtui.tui.screens.population import PopulationScreen
from wbtui.tui.state import FIRST_SORT

TABLE = make.table(n=400, v=V, bad=(4,))


def _page(app: WbtuiApp) -> PopulationScreen:
    assert isinstance(app.screen, PopulationScreen)
    return app.screen


async def _drawn(pilot: Any) -> PopulationScreen:
    await until(pilot, lambda: isinstance(pilot.app.screen, PopulationScreen) and not pilot.app.screen.pending)
    await pilot.pause()
    return _page(pilot.app)


# What is counted --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    "name", ["writes.z_max", "reads.z_max", "writes.kurt", "writes.word_share", "writes.n_words", "writes.z_min",
             "d_norm", "writes.evidence", "writes.mean", "overlap", "writes.n_masked_above", "percentile:writes.lev"],
)  # fmt: skip
def test_the_filter_of_a_bin_lets_through_what_the_bin_counts(name: str, log: bool) -> None:
    crowd = gather(TABLE, name, log=log)
    for i in range(crowd.bins.n):
        expected = sum(int(crowd.counts[g][i]) for g in crowd.groups)
        found = int(parse(crowd.bins.expression(name, i, i + 1)).mask(TABLE).sum())
        assert found - _unlabelled_in(crowd, TABLE, i) == expected, crowd.bins.span(i, i + 1)
    everything = sum(int(c.sum()) for g, c in crowd.counts.items() if g != NOISE)
    finite = np.isfinite(np.where(TABLE.known(name), TABLE.column(name), np.nan))
    if not log:
        assert everything + crowd.unlabelled == finite.sum()


def _unlabelled_in(crowd: Crowd, table: Any, i: int) -> int:
    labelled = table.known("semantic.writes")
    return int((parse(crowd.bins.expression(crowd.name, i, i + 1)).mask(table) & ~labelled).sum())


@given(
    some.lists(some.floats(-1e6, 1e6, width=32), min_size=1, max_size=80),
    some.booleans(),
)
@example([8.267660939516421e-44], True)
@example([1.401298464324817e-45, 2.802596928649634e-45], False)
def test_bins_hold_everything_once_and_print_their_edges(values: list[float], log: bool) -> None:
    ordered = np.sort(np.array(values, dtype=np.float64))
    bins = make_bins([ordered], log=log)
    assert 1 <= bins.n <= 60
    assert (np.diff(bins.edges) > 0).all()
    assert bins.counts(ordered).sum() == ((ordered > 0).sum() if log else len(ordered))
    for edge, text in zip(bins.edges, bins.texts, strict=True):
        assert np.float32(float(text)) == np.float32(edge)


whole = some.integers(0, 12).map(float)


@given(some.lists(some.floats(-1e6, 1e6, width=32) | whole, min_size=1, max_size=900), some.booleans())
@example([float(i % 3) for i in range(600)], False)
@example([0.0] * 500 + [i / 7 for i in range(70)], False)
def test_a_metric_in_its_own_precision_has_the_bins_of_the_same_values_in_float64(
    values: list[float], log: bool
) -> None:
    ordered = np.sort(np.array(values, dtype=np.float32))
    own, wide = make_bins([ordered], log=log), make_bins([ordered.astype(np.float64)], log=log)
    assert (own.texts, own.whole, own.edges.tolist()) == (wide.texts, wide.whole, wide.edges.tolist())
    assert own.counts(ordered).tolist() == wide.counts(ordered.astype(np.float64)).tolist()


@given(some.lists(some.tuples(whole | some.floats(-10, 10, width=32), some.booleans()), max_size=60))
def test_the_median_of_the_rest_is_that_of_its_values(pairs: list[tuple[float, bool]]) -> None:
    values = np.array([value for value, _ in pairs], dtype=np.float32)
    chosen = np.array([taken for _, taken in pairs], dtype=bool)
    found = middle_of_rest(np.sort(values), np.sort(values[chosen]))
    rest = values[~chosen].astype(np.float64)
    assert found == (np.median(rest) if len(rest) else None) or (not len(rest) and np.isnan(found))


@pytest.mark.parametrize("name", ["writes.z_max", "reads.cos_tok", "writes.evidence", "selfcos"])
def test_the_cards_population_is_that_of_a_plain_count(name: str) -> None:
    found = make_population(TABLE, name)
    values = np.where(TABLE.known(name), TABLE.column(name).astype(np.float64), np.nan)
    known = np.isfinite(values) & TABLE.computed
    semantic = TABLE.column("semantic.writes")
    assert found is not None and 0 < semantic[known].sum() < known.sum()
    for group, rows in (("semantic", known & semantic), ("other", known & ~semantic)):
        its = np.sort(values[rows])
        assert (found.counts[group], found.medians[group]) == (len(its), np.median(its))
        assert found.shares[group].tolist() == (found.bins.counts(its) / len(its)).tolist()
    assert found.values.tolist() == np.sort(values[known]).tolist()


def test_few_evenly_spaced_values_have_a_bin_each() -> None:
    tenths = make_bins([np.sort(np.float32(np.arange(11) / 10).astype(np.float64))])
    assert (tenths.n, tenths.whole, [tenths.centre(i) for i in (0, 3, 10)]) == (11, True, ["0.0", "0.3", "1.0"])
    counts = make_bins([np.array([0.0, 0, 1, 5])])
    assert counts.counts(np.array([0.0, 0, 1, 5])).tolist() == [2, 1, 0, 0, 0, 1]
    assert counts.expression("n", 1, 2) == "n>=0.5 n<1.5"


def test_values_as_good_as_one_are_drawn_as_one() -> None:
    bins = make_bins([np.sort(np.float32(1 + np.linspace(-5e-5, 5e-5, 90)).astype(np.float64))])
    assert bins.n == 3


def test_moving_the_line_counts_strictly_above_and_leaves_effects_alone() -> None:
    crowd = gather(TABLE, "writes.z_max")
    values, semantic = TABLE.column("writes.z_max"), TABLE.column("semantic.writes")
    for value in (crowd.start, *crowd.bins.edges[::7]):
        line = crowd.stand(float(value))
        assert line.above["semantic"] == pytest.approx(np.mean(values[semantic] > value))
        own = np.mean(values[np.isfinite(values)] > value)
        noise = max(np.mean(v > value) for _, v in crowd.noise)
        assert line.above[NOISE] == pytest.approx(noise)
        assert line.fdr == pytest.approx(min(1.0, noise / own)) if own else math.isnan(line.fdr)
    assert crowd.stand(crowd.start).above[NOISE] <= 0.0101
    assert crowd.mode == "null"


def test_steps_go_from_edge_to_edge_and_stay_inside() -> None:
    crowd = gather(TABLE, "writes.z_max")
    edges = crowd.bins.edges
    at = crowd.bins.where(crowd.start)
    assert crowd.step(crowd.start, 1) == edges[at + 1]
    assert crowd.step(crowd.start, -1) == edges[at]
    assert crowd.step(float(edges[3]), -1) == edges[2]
    assert crowd.step(float(edges[0]), -5) == edges[0]
    assert crowd.step(float(edges[-2]), 99) == edges[-2]


def test_a_label_made_of_the_metric_says_so_and_another_does_not() -> None:
    assert gather(TABLE, "writes.z_max", "semantic.writes").circular
    assert not gather(TABLE, "writes.z_max", "semantic.reads").circular
    assert not gather(TABLE, "d_norm", "semantic.writes").circular


def test_metrics_are_numbers_of_both_sides_and_open_on_what_sorts() -> None:
    names = metrics_of()
    assert {"writes.z_max", "reads.z_max", "writes.evidence", "reads.n_words", "d_norm", "selfcos"} <= set(names)
    assert not any(n == "id" or n.endswith(("_id", ".class")) or n.startswith("semantic") for n in names)
    for name in names:
        gather(TABLE, name)
    assert metric_for(FIRST_SORT) == "writes.z_max"
    assert metric_for((("reads.lev", True),)) == "reads.lev"
    assert metric_for((("id", False),)) == metric_for((("writes.class", True),)) == "writes.z_max"
    assert metric_for((("reads.lev", True),), "d_norm") == "d_norm"
    assert metrics_of("against.z_max")[0] == "against.z_max"


# What is drawn ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", [LABELS[0], "writes.class"])
@pytest.mark.parametrize("cumulative", [False, True])
@pytest.mark.parametrize("name", ["writes.z_max", "writes.n_words", "selfcos"])
def test_drawings_and_tables_have_their_size(name: str, cumulative: bool, label: str) -> None:
    for log in (False, True):
        crowd = gather(TABLE, name, label, log=log)
        for width in (24, 58, 69, 78, 149):
            for height in (5, 9, 12, 35):
                for value in (crowd.start, *crowd.bins.edges[[0, 3, -2]]):
                    for mark in (("#7", TABLE.value(name, 7)), ("#4", math.nan)):
                        lines = plot(crowd, crowd.stand(float(value)), mark, width, height, cumulative=cumulative)
                        assert len(lines) == height
                        assert all(width_of(line) == width for line in lines)
        line = crowd.stand(crowd.start)
        for width in (46, 58, 78, 100):
            for draw in (under, beside_named):
                assert all(width_of(x) <= width for x in draw(crowd, line, width, 30))


def beside_named(crowd: Crowd, line: Any, width: int, height: int) -> list[Any]:
    return beside(crowd, line, ("#7", 5.0), width, height)


def test_groups_are_told_apart_by_glyph_and_the_line_stands_in_its_bin() -> None:
    crowd = gather(TABLE, "writes.z_max")
    grid = Grid(crowd.bins, 60)
    value = float(crowd.bins.edges[crowd.bins.n // 2])
    lines = [text_of(x) for x in plot(crowd, crowd.stand(value), ("#7", TABLE.value("writes.z_max", 7)), 66, 24)]
    assert all(any(glyph in x for x in lines[1:20]) for glyph in "█▒─│┆")
    at = GUTTER + grid.group_of(value) * grid.wide
    assert {x[at] for x in lines[:20]} == {"┆"}
    assert lines[0][at:].startswith(f"┆ {number(crowd.bins, value)}")
    mark = next(x for x in lines if "▲" in x)
    assert mark.index("▲") == GUTTER + grid.column(TABLE.value("writes.z_max", 7))
    assert "#7" in mark and "above" in mark


def test_the_height_of_a_solid_column_is_its_share() -> None:
    crowd = gather(TABLE, "selfcos", "semantic.writes")
    lines = [text_of(x) for x in plot(crowd, crowd.stand(-99.0), ("#7", math.nan), 66, 44)]
    body = lines[1:41]
    top = float(body[0].split("%")[0]) / 100
    grid = Grid(crowd.bins, 60)
    share = crowd.share("semantic")
    for i in range(1, crowd.bins.n):
        cells = sum(1 for x in body if x[GUTTER + i * grid.wide] == "█")
        assert cells <= share[i] / top * 40 + 0.51


def test_percentages_never_round_some_to_none_or_most_to_all() -> None:
    assert [percent(x) for x in (0.0, 0.0001, 0.01, 0.5, 0.9999, 1.0, math.nan)] == [
        "0 %", "<0.1 %", "1.0 %", "50 %", ">99.9 %", "100 %", "–",
    ]  # fmt: skip


# What a user does -------------------------------------------------------------------------------------------------


async def test_move_the_line_see_the_numbers_open_the_bin_and_come_back(ready: Place) -> None:
    app = ready.app(ready.address())
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        await pilot.press("s")
        await settled(pilot)
        await pilot.press("F")
        page = await _drawn(pilot)
        assert page.wanted.metric == "writes.evidence", "the metric that sorts"
        await pilot.press("m")
        page = await _drawn(pilot)
        await pilot.press("M", "M")
        page = await _drawn(pilot)
        crowd = page.crowd
        assert crowd is not None
        text = screen_text(app)
        assert f"population of {crowd.name}" in text
        first = [line for line in text.splitlines() if "semantic " in line and "%" in line]
        assert "null: 99 %" in text
        assert text.splitlines()[0].rstrip().endswith("tokens"), "definition, null and mask stay on line 1"
        await pilot.press("right", "right", "shift+right")
        await pilot.pause()
        moved = screen_text(app)
        assert "fixed by hand" in moved
        assert [line for line in moved.splitlines() if "semantic " in line and "%" in line] != first
        value = page.standing.value
        assert value > crowd.start
        await pilot.press("0")
        assert page.standing.value == crowd.start
        await pilot.press("left")
        low, stop = page.standing.value, crowd.bins.edges[crowd.bins.where(page.standing.value) + 1]
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is main and main.settled and main.view.filter != "")
        await settled(pilot)
        column = main.opened.table.column(crowd.name)  # type: ignore[union-attr]
        expected = np.flatnonzero((column >= np.float32(low)) & (column < np.float32(stop)))
        assert sorted(main.rows.order.tolist()) == expected.tolist()
        assert main.view.filter.startswith(f"{crowd.name}>=")
        assert main.view.filter in screen_text(app), "it stands in the filter line"
        await pilot.press("slash")
        assert main.typing == "filter", "and can be edited"
        await pilot.press("enter", "left_square_bracket")
        await until(pilot, lambda: main.view.filter == "" and len(main.rows) == 600)


async def test_groups_axis_and_curves_follow_their_keys(ready: Place) -> None:
    app = ready.app(ready.address())
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await pilot.press("F")
        await _drawn(pilot)
        for label in (*LABELS[1:], LABELS[0]):
            await pilot.press("g")
            page = await _drawn(pilot)
            assert page.crowd is not None
            assert page.crowd.label == label
            assert page.crowd.groups[0] in screen_text(app)
        await pilot.press("c")
        await pilot.pause()
        assert "100 %" in screen_text(app)
        await pilot.press("c", "l")
        page = await _drawn(pilot)
        assert page.crowd is not None and page.crowd.bins.log
        for key in ("D", "question_mark"):
            await pilot.press(key)
            assert app.screen is not page
            await pilot.press("escape")
            assert app.screen is page
        await pilot.press("escape")
        assert isinstance(app.screen, MainScreen)


async def test_metrics_of_every_family_in_every_shape_at_every_size(hostile: Place) -> None:
    app = hostile.app(hostile.address())
    async with app.run_test(size=(60, 20)) as pilot:
        await settled(pilot)
        await pilot.press("F")
        page = await _drawn(pilot)
        for at, metric in enumerate(page.metrics[::5]):  # what each counts is tested without a screen
            size = ((60, 20), (80, 24), (200, 50), (110, 20))[at % 4]
            await pilot.resize_terminal(*size)
            page.wanted = type(page.wanted)(metric)
            page.gather()
            await pilot.press(*("g", "l", "c")[: at % 4])
            await _drawn(pilot)
            await pilot.press("right", "shift+left")
            await pilot.pause()
            text = screen_text(app)
            assert "nan" not in text.replace("nanc", "")
            assert all(strip.cell_length == size[0] for strip in app.screen._compositor.render_strips())
        await pilot.resize_terminal(40, 10)
        await pilot.pause()
        await pilot.press("right", "m")
        await pilot.resize_terminal(80, 24)
        await _drawn(pilot)


async def _opened(app: WbtuiApp, pilot: Any, metric: str = "") -> str:
    await until(pilot, lambda: app.main is not None and app.main.opened is not None and app.main.arranged is not None)
    await pilot.press("F")
    page = await _drawn(pilot)
    if metric:
        page.wanted = type(page.wanted)(metric)
        page.gather()
        await _drawn(pilot)
    return " ".join(screen_text(app).split())


async def test_nothing_computed_no_noise_and_no_reads_have_their_words(place: Place, tmp_path: Path) -> None:
    app = place.app(place.address())
    async with app.run_test(size=(120, 40)) as pilot:
        assert "nothing is computed yet" in await _opened(app, pilot)
        await pilot.press("right", "enter", "e", "l", "0", "c", "g", "m", "M", "c", "l")
        await _drawn(pilot)
        assert isinstance(app.screen, PopulationScreen)
        place.fill(nulls=False)
        assert app.main is not None and app.main.opened is not None
        app.main.opened.table.refresh()
        await until(pilot, lambda: _page(app).crowd is not None and not _page(app).crowd.missing)  # type: ignore[union-attr]
        await pilot.pause()
        text = screen_text(app)
        assert "fixed: the median of all" in text
        assert "all features" in text and "no labels yet" in " ".join(text.split())
        await pilot.press("right")
        await pilot.pause()
        assert "fixed by hand" in screen_text(app)
    columns = columns_with(flags=dict.fromkeys(range(600), schema.FLAG_NO_READS))
    for name in columns:
        if name.startswith("reads.") and columns[name].dtype.kind == "f":
            columns[name][:] = np.nan
    other = Place(tmp_path / "noreads")
    other.fill(columns=columns)
    app = other.app(other.address())
    async with app.run_test(size=(80, 24)) as pilot:
        assert "does not read the residual stream" in await _opened(app, pilot, "reads.z_max")
        await pilot.press("m")
        await _drawn(pilot)


@pytest.mark.parametrize("size", [(120, 40), (80, 24)])
async def test_one_feature_and_a_column_of_nan(tmp_path: Path, size: tuple[int, int]) -> None:
    place = Place(tmp_path, n=1, layers=(0,))
    columns = columns_with(n=1)
    columns["writes.lev"][:] = np.nan
    place.fill("L0", columns=columns)
    app = place.app(place.address("L0"))
    async with app.run_test(size=size) as pilot:
        text = await _opened(app, pilot)
        assert "▲" in text
        await pilot.press("right", "left", "shift+left", "c", "l", "g", "m", "M")
        await _drawn(pilot)
        page = _page(app)
        page.wanted = type(page.wanted)("writes.lev")
        page.gather()
        await _drawn(pilot)
        assert "no feature has a finite value of writes.lev" in " ".join(screen_text(app).split())


async def test_an_empty_bin_says_so_and_stays(ready: Place) -> None:
    app = ready.app(ready.address())
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await pilot.press("F")
        page = await _drawn(pilot)
        crowd = page.crowd
        assert crowd is not None
        empty = [i for i in range(crowd.bins.n) if not sum(int(crowd.counts[g][i]) for g in crowd.groups)]
        if not empty:
            pytest.fail("the invented rows leave no bin empty: choose another metric")
        page.wanted = type(page.wanted)(crowd.name, line=float(crowd.bins.edges[empty[0]]))
        await pilot.press("enter")
        await pilot.pause()
        assert app.screen is page
        assert "no feature stands under the line" in screen_text(app)


async def test_export_writes_what_is_drawn(ready: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = ready.app(ready.address())
    async with app.run_test(size=(200, 50)) as pilot:
        await settled(pilot)
        await pilot.press("F")
        page = await _drawn(pilot)
        await pilot.press("right", "right", "e")
        await until(pilot, lambda: page.notice[0].startswith("wrote"))
        await pilot.press("e")
        await until(pilot, lambda: "-2.csv" in page.notice[0])
        crowd, line = page.crowd, page.standing
        assert crowd is not None
    stem = "tiny-L1-population-writes.z_max"
    rows = list(csv.DictReader((tmp_path / f"{stem}.csv").read_text().splitlines()))
    assert len(rows) == crowd.bins.n
    assert [int(r["semantic"]) for r in rows] == crowd.counts["semantic"].tolist()
    assert [int(r["noise"]) for r in rows] == crowd.counts["noise"].tolist()
    assert (rows[0]["low"], rows[-1]["high"]) == ("", "")
    numbers = {
        (r["statistic"], r["group"], r["against"]): r["value"]
        for r in csv.DictReader((tmp_path / f"{stem}.statistics.csv").read_text().splitlines())
    }
    assert float(numbers["threshold", "", ""]) == line.value
    assert float(numbers["share_above_threshold", "semantic", ""]) == line.above["semantic"]
    assert float(numbers["cliffs_delta", "semantic", "other"]) == crowd.effects[0].delta
    svg = (tmp_path / f"{stem}.svg").read_text()
    assert svg.startswith("<svg") and "semantic" in svg
    note = json.loads((tmp_path / f"{stem}.meta.json").read_text())
    assert note["threshold"]["mode"] == "fixed"
    assert note["definition"] and note["thresholds"]
    assert (tmp_path / f"{stem}-2.svg").exists()
    assert not list(tmp_path.glob(".*tmp"))


async def test_export_to_a_folder_that_cannot_be_written_says_why(
    ready: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    monkeypatch.setattr("wbtui.tui.screens.page.Path.cwd", classmethod(lambda cls: gone))
    app = ready.app(ready.address())
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await pilot.press("F")
        page = await _drawn(pilot)
        await pilot.press("e")
        await until(pilot, lambda: page.notice[1] == "error")
        assert "No such file" in page.notice[0]


def test_files_of_an_undrawable_statistic_are_empty_not_nan() -> None:
    crowd = gather(TABLE, "selfcos")
    line = crowd.stand(crowd.start)
    assert "nan" not in statistics_csv(crowd, line, ("#4", math.nan)).lower().replace("noise", "")
    assert bins_csv(crowd).splitlines()[0] == "low,high,semantic,other"


POPULATION_SHOTS: list[tuple[int, int]] = [(120, 40), (80, 24)]


@pytest.mark.parametrize("size", POPULATION_SHOTS, ids=[f"{w}x{h}" for w, h in POPULATION_SHOTS])
def test_population_looks(ready: Place, snap_compare: Callable[..., bool], size: tuple[int, int]) -> None:
    async def before(pilot: Any) -> None:
        await settled(pilot)
        await pilot.press("F")
        await _drawn(pilot)
        await pilot.press("right", "right")
        await pilot.pause()

    assert snap_compare(ready.app(ready.address()), terminal_size=size, run_before=before)
