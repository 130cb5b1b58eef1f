"""Ratios, shares and lists of heads against plain numpy, one number at a time."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from tests.features import make
from tests.tui.heads_place import arrays, ov_arrays
from wbtui.definitions import AttentionDefinition
from wbtui.errors import UsageError
from wbtui.features import heads_record
from wbtui.features.glossary import explain
from wbtui.features.head_shelf import HeadShelf, canonical, parts_of
from wbtui.features.heads import STATISTICS, HeadNull, HeadTable, largest
from wbtui.features.names import resolve
from wbtui.features.order import order
from wbtui.features.query import QueryError, parse
from wbtui.features.table import FeatureTable

H, N = 5, 300
NAN_ROW = 7


def made(**more):
    columns = arrays(H, N, 1)
    for name, array in columns.items():
        array[:, NAN_ROW] = -1 if name.endswith("partner") else np.nan
    nulls = [HeadNull("isotropic", 0, arrays(H, 200, 2, N)), HeadNull("decoder_cov", 0, arrays(H, 150, 3, N))]
    checks = [HeadNull("isotropic", 1, arrays(H, 200, 4, N)), HeadNull("decoder_cov", 1, arrays(H, 200, 5, N))]
    args = {"nulls": nulls, "checks": checks, "ov": ov_arrays(H, N, 6), "layer": 4} | more
    return HeadTable.from_arrays(columns, **args), columns, nulls, checks


def bar(nulls, name, h):
    return max(float(np.percentile(n.columns[name][h].astype(np.float64), 99)) for n in nulls)


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("side", ["query", "key"])
def test_ratio_is_value_over_the_larger_99th_percentile_of_the_same_head(side, statistic):
    table, columns, nulls, _ = made()
    name = f"{side}.{statistic}"
    for h in range(H):
        level = bar(nulls, name, h)
        assert table.bars(side, statistic)[h] == pytest.approx(level, rel=1e-12)
        for row in (0, 123, N - 1):
            want = float(columns[name][h, row]) / level
            assert table.row(row, statistic).ratio[side][h] == pytest.approx(want, rel=1e-12)
            assert table.ratios(side, statistic)[h, row] == pytest.approx(want, rel=1e-12)
            assert table.head(h, side, statistic)[row] == pytest.approx(want, rel=1e-12)
    assert table.row(3).statistic == "max"


def test_the_larger_side_is_shown_where_no_side_is_named():
    table, *_ = made()
    want = np.fmax(table.ratios("query")[2], table.ratios("key")[2])
    np.testing.assert_array_equal(table.head(2), want)


def test_a_row_without_numbers_has_none_anywhere():
    table, *_ = made()
    row = table.row(NAN_ROW)
    assert np.isnan(row.best).all()
    assert row.strongest(8) == []
    assert math.isnan(table.percentile("key", 0, NAN_ROW))
    assert table.seekers(0, "key", NAN_ROW, 5) == [
        (int(i), float(s))
        for i, s in sorted(
            ((i, table.column("query.max")[0, i]) for i in np.flatnonzero(table.column("query.partner")[0] == NAN_ROW)),
            key=lambda p: (-p[1], p[0]),
        )[:5]
    ]
    assert all(feature != NAN_ROW for feature, _ in table.top(0, "key", N))


def test_strongest_parts_are_the_largest_ratios_with_their_partners():
    table, columns, nulls, _ = made()
    flat = [
        (side, h, float(columns[f"{side}.max"][h, 42]) / bar(nulls, f"{side}.max", h))
        for side in ("query", "key")
        for h in range(H)
    ]
    flat.sort(key=lambda p: -p[2])
    got = table.row(42).strongest(4)
    assert [(p.side, p.head) for p in got] == [(s, h) for s, h, _ in flat[:4]]
    assert [p.partner for p in got] == [int(columns[f"{p.side}.partner"][p.head, 42]) for p in got]
    assert [p.value for p in got] == [float(columns[f"{p.side}.max"][p.head, 42]) for p in got]
    assert [p.beyond for p in got] == [r > 1 for *_, r in flat[:4]]


@pytest.mark.parametrize("side", ["query", "key"])
def test_shares_of_pairs_and_of_features_in_some_head(side):
    table, columns, nulls, checks = made()
    name = f"{side}.max"
    levels = np.array([bar(nulls, name, h) for h in range(H)])[:, None]
    ratios = columns[name].astype(np.float64) / levels
    known = np.isfinite(ratios)
    pairs = table.pairs(side)
    assert (pairs.count, pairs.n) == (int((ratios[known] > 1).sum()), H * (N - 1))
    noise = [(c.columns[name].astype(np.float64) / levels > 1).mean() for c in checks]
    assert pairs.null == pytest.approx(max(noise))
    assert pairs.fresh
    one = table.pairs(side, head=3)
    assert (one.count, one.n) == (int((ratios[3][known[3]] > 1).sum()), N - 1)

    line = max(np.percentile((n.columns[name].astype(np.float64) / levels).max(0), 99) for n in nulls)
    some = table.any_head(side)
    top = np.nanmax(np.delete(ratios, NAN_ROW, axis=1), axis=0)
    assert some.bar == pytest.approx(line)
    assert (some.count, some.n) == (int((top > line).sum()), N - 1)
    own = [((c.columns[name].astype(np.float64) / levels).max(0) > line).mean() for c in checks]
    assert some.null == pytest.approx(max(own))
    assert some.bar > 1  # the largest of several heads passes their own lines often


def test_without_fresh_noise_the_thresholds_own_judge_and_say_so():
    table, *_ = made(checks=())
    assert not table.pairs("key").fresh
    assert table.pairs("key").null == pytest.approx(0.01, abs=0.01)


def test_before_every_null_is_there_nothing_stands_beyond_anything():
    table, *_ = made(nulls=())
    assert not table.ready
    assert np.isnan(table.row(0).best).all()
    assert table.pairs("key").n == 0


def test_features_a_head_reads_most_and_who_looks_for_one():
    table, columns, *_ = made()
    ratios = np.where(np.isfinite(columns["key.max"][1]), columns["key.max"][1], -np.inf)
    want = sorted(range(N), key=lambda i: (-ratios[i], i))[:10]
    assert [feature for feature, _ in table.top(1, "key", 10)] == want

    row = 11
    columns["query.partner"][1][[3, 90]] = row
    columns["key.partner"][1][row] = 200
    columns["key.max"][1][row] = 99.0
    found = table.seekers(1, "key", row, 50)
    back = [i for i in range(N) if columns["query.partner"][1][i] == row and i != 200]
    assert {3, 90} <= set(back)
    assert found[0] == (200, 99.0)
    assert dict(found[1:]) == {i: float(columns["query.max"][1][i]) for i in back}
    assert [s for _, s in found] == sorted((s for _, s in found), reverse=True)


def test_percentile_is_the_share_strictly_below():
    table, columns, *_ = made()
    values = columns["key.max"][2]
    want = np.nansum(values < values[20]) / (N - 1) * 100
    assert table.percentile("key", 2, 20) == pytest.approx(want)


def test_rms_stands_in_where_there_are_no_peaks():
    columns = arrays(H, N, 1)
    for side in ("query", "key"):
        columns[f"{side}.max"][:] = np.nan
    table = HeadTable.from_arrays(columns, nulls=[HeadNull("isotropic", 0, arrays(H, 200, 2, N))])
    assert table.statistic == "rms"
    assert np.isfinite(table.row(0).best).all()


def test_a_line_that_is_not_above_zero_is_no_line():
    null = arrays(H, 200, 2, N)
    null["key.max"][0] = -np.abs(null["key.max"][0])
    table, *_ = made(nulls=[HeadNull("isotropic", 0, null)])
    assert math.isnan(table.bars("key")[0])
    assert np.isnan(table.head(0, "key")).all()


def test_estimates_are_named_above_the_definitions_size():
    small, *_ = made(definition=AttentionDefinition(pairs_below=N))
    large, *_ = made(definition=AttentionDefinition(pairs_below=N - 1))
    assert not small.estimated("max")
    assert large.estimated("max")
    assert not large.estimated("rms")


def test_largest_breaks_ties_by_position_and_leaves_out_what_is_not_finite():
    values = np.array([1.0, 3.0, np.nan, 3.0, np.inf, 2.0, 3.0])
    assert largest(values, 3).tolist() == [1, 3, 6]
    assert largest(values, 99).tolist() == [1, 3, 6, 5, 0]
    assert largest(values, 0).tolist() == []


def test_rows_and_heads_out_of_range_are_refused():
    table, *_ = made()
    with pytest.raises(UsageError, match="0 to 299"):
        table.row(N)
    with pytest.raises(UsageError, match="0 to 4"):
        table.head(5)


# names, filters, records -------------------------------------------------------------------------------------------


def features(heads=True):
    table = FeatureTable.from_arrays(make.columns(N, 200, seed=1))
    if heads:
        table.__dict__["heads"] = HeadShelf.of({4: made()[0]})
    return table


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("head:L4.H2", "head:L4.H2"), ("head:L4.H2.peak", "head:L4.H2"), ("head:L04.H02.max", "head:L4.H2"),
        ("head:L4.H2.key", "head:L4.H2.key"), ("head:L4.H2.query.rms", "head:L4.H2.query.rms"),
        ("head:L4.H2.rms", "head:L4.H2.rms"), ("head:L4", None), ("head:L4.H2.both", None),
        ("head:L4.H2.key.partner", None), ("head:l4.h2", None), ("head:L4.H٢", None),
    ],
)  # fmt: skip
def test_names_of_heads(text, want):
    assert canonical(text) == want
    if want is not None:
        assert resolve(text).text == want
        assert resolve(text).numeric
        assert "99th percentile" in explain(text).meaning


def test_parts_of_a_name():
    assert parts_of("head:L4.H2.key.rms") == (4, 2, "key", "rms")
    assert parts_of("head:L4.H2") == (4, 2, None, "max")


def test_a_filter_and_an_order_by_a_head():
    table = features()
    own = made()[0].head(2, "key").astype(np.float32)
    query = parse("head:L4.H2.key>1")
    np.testing.assert_array_equal(query.mask(table), own > 1)
    assert str(parse(str(query))) == str(query)
    below = parse("!head:L4.H2.key>1").mask(table)
    np.testing.assert_array_equal(below, own <= 1)
    assert not below[NAN_ROW]
    rows = order(table, [("head:L4.H2.key", True)])
    assert rows[0] == np.nanargmax(own)
    assert rows[-1] == NAN_ROW


def test_a_filter_by_heads_that_are_not_there_matches_nothing_and_says_so():
    query = parse("head:L4.H2>1")
    assert not query.mask(features(heads=False)).any()
    assert "not there yet" in query.why_empty(features(heads=False))
    assert "not computed yet" in parse("head:L4.H2").why_empty(features(heads=False))


@pytest.mark.parametrize(
    ("text", "said", "at"),
    [
        ("semantic head:L5.H0>1", "nearest: head:L4.H0", 9), ("head:L0.H2", "nearest: head:L4.H2", 0),
        ("z_max>1 head:L4.H77.key.rms", "nearest: head:L4.H4.key.rms", 8), ("head:L4.H5=1..2", "0 to 4", 0),
        ("!head:L4.H9", "nearest: head:L4.H4", 1), ("head:L4.H2.nonsense", "with .query or .key", 0),
        ("head:L4.H2.nonsense>1", "peak, rms", 0), ("(head:4.2)", "head:L4.H2", 1), ("head:>1", "head:L4.H2", 0),
    ],
)  # fmt: skip
def test_a_head_that_is_not_there_is_an_error_with_the_nearest(text, said, at):
    with pytest.raises(QueryError) as error:
        parse(text).mask(features())
    assert said in error.value.line()
    assert error.value.position == at


@pytest.mark.parametrize("side", [None, "query", "key"])
@pytest.mark.parametrize("statistic", [None, "rms"])
def test_led_is_the_strongest_head_beyond_the_noise_of_the_strongest(side, statistic):
    """By one number at a time: the head of the largest ratio, where noise's own largest reaches it in 1 of 100."""
    table, columns, nulls, _ = made()
    stat = statistic or "max"
    sides = (side,) if side else ("query", "key")

    def largest_of(source, i):
        found = [
            (float(source[f"{s}.{stat}"][h, i]) / bar(nulls, f"{s}.{stat}", h), -h) for s in sides for h in range(H)
        ]
        return max(found)

    level = max(np.percentile([largest_of(null.columns, i)[0] for i in range(null.n)], 99) for null in nulls)
    want = np.full(N, -1)
    for i in range(N):
        if i != NAN_ROW:
            ratio, head = largest_of(columns, i)
            want[i] = -head if ratio > level else -1
    want[NAN_ROW] = -2
    np.testing.assert_array_equal(table.leader(side, statistic), want)
    led = features()
    name = "head:L4.H2" + (f".{side}" if side else "") + (f".{statistic}" if statistic else "")
    np.testing.assert_array_equal(parse(name).mask(led), want == 2)
    np.testing.assert_array_equal(parse("!" + name).mask(led), (want != 2) & (want >= -1))
    assert str(parse(name)) == name
    every = [parse(name.replace("H2", f"H{h}")).mask(led) for h in range(H)]
    assert (np.sum(every, axis=0) <= 1).all(), "no feature has two leaders"
    assert (want >= 0).any()


def test_noise_is_led_as_rarely_as_its_line_says():
    """WHEN fresh noise is judged by the line THEN about 1 in 100 of it is led by any head."""
    noise = HeadTable.from_arrays(
        arrays(H, 4000, 11, N), nulls=[HeadNull("isotropic", 0, arrays(H, 4000, 12, N))], layer=4
    )
    share = (noise.leader() >= 0).mean()
    assert 0.004 < share < 0.02


def test_ties_go_to_the_smaller_head():
    columns = {k: np.repeat(v[:1], 2, axis=0) * 50 for k, v in arrays(1, 20, 1).items()}
    null = {k: np.repeat(v[:1], 2, axis=0) for k, v in arrays(1, 200, 2, 20).items()}
    table = HeadTable.from_arrays(columns, nulls=[HeadNull("isotropic", 0, null)], layer=4)
    assert set(table.leader().tolist()) == {0}


def test_the_record_names_partners_with_words():
    table, heads = features(), made()[0]
    out = table.record(42)["heads"]
    part = heads.row(42).strongest(1, "key")[0]
    first = out["key"]["strongest"][0]
    assert first["head"] == part.head
    assert first["ratio"] == pytest.approx(part.ratio, rel=1e-6)
    assert first["score"] == pytest.approx(part.value, rel=1e-6)
    assert first["partner"] == part.partner
    assert first["partner_words"] == heads_record.words_of(table, part.partner)
    assert first["rms_ratio"] == pytest.approx(heads.row(42, "rms").ratio["key"][part.head], rel=1e-6)
    assert json.loads(json.dumps(out, allow_nan=False))["layer"] == 4
    assert table.record(NAN_ROW)["heads"]["key"]["strongest"] == []


def test_the_record_says_why_there_are_no_heads():
    out = features(heads=False).record(0)
    assert out["heads"] is None
    assert out["heads_absent"]


def test_the_summary_has_shares_and_the_strongest_pairs():
    table, heads = features(), made()[0]
    out = heads_record.summary(heads, table)
    assert out["key"]["pairs"]["count"] == heads.pairs("key").count
    assert out["key"]["some_head"]["bar"] == pytest.approx(heads.any_bar("key"), rel=1e-6)
    top = out["query"]["strongest"][0]
    ratios = heads.ratios("query")
    h, i = np.unravel_index(np.nanargmax(ratios), ratios.shape)
    assert (top["head"], top["feature"]) == (h, i)
    assert top["ratio"] == pytest.approx(ratios[h, i], rel=1e-6)
    json.dumps(out, allow_nan=False)


def test_products_that_land_are_taken_once_from_any_number_of_threads(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    from tests.tui.heads_place import fill_heads
    from tests.tui.place import Place

    place = Place(tmp_path, n=60, layers=(1,))
    plan = place.plan("L1")
    shelf = HeadShelf(place.cache, plan.model, plan.sae)
    table = shelf.table()
    assert not table.ready
    assert table.missing == ("null", "attention", "check", "ov", "ov_null")
    columns = fill_heads(place)
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda _: shelf.refresh(), range(32))) == 1
    assert table.complete
    assert [(null.kind, null.seed) for null in table.nulls] == [("isotropic", 0), ("decoder_cov", 0)]
    assert len(table.checks) == 2
    np.testing.assert_array_equal(table.column("key.max"), columns["key.max"])
    np.testing.assert_array_equal(shelf.column("head:L2.H1.key"), table.head(1, "key").astype(np.float32))
