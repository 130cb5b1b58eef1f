"""Thresholds, classes and evidence: closed forms first, then the plain-loop reference."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.features import make, reference
from wbtui.errors import UsageError
from wbtui.features import classes
from wbtui.features.noise import METRICS, NullSample
from wbtui.features.thresholds import Thresholds, population_quantiles


def sample(word_z, kind="isotropic", **metrics):
    """A null with given word profiles; every metric counts 0…n-1 unless given."""
    word_z = np.asarray(word_z, np.float32)
    n = len(word_z)
    columns = {f"{s}.word_z": word_z for s in ("writes", "reads")}
    for name in METRICS:
        values = np.asarray(metrics.get(name, np.arange(n)), np.float32)
        columns |= {f"{s}.{name}": values for s in ("writes", "reads")}
    return NullSample(kind, 0, columns)


def reader(**arrays):
    return lambda name: arrays[name]


def test_envelope_of_a_null_known_by_hand():
    """GIVEN 101 directions whose k-th word has z = i/100 (k=1) and i/200 (k=2), so both profiles rise together
    THEN med = .5, q = .99, c = 1 exactly at the 99th percentile, and tau_k = q_k."""
    i = np.arange(101)
    bars = Thresholds(nulls=(sample(np.stack([i / 100, i / 200], 1)),)).side("writes")
    np.testing.assert_allclose(bars.word_z, [0.99, 0.495], rtol=1e-6)


def test_envelope_is_wider_when_words_exceed_apart():
    """GIVEN a null where rows that are high at k=1 are low at k=2 and the other way round
    THEN one per cent at each k is nearly two per cent anywhere, and c rises above 1 to keep it at one."""
    i = np.arange(1001)
    profiles = np.stack([i, i[::-1]], 1).astype(float)
    stats = sample(profiles).stats("writes")
    # max_k((z_k - 500) / 490): the 99th percentile of max(i, 1000 - i) is 995, (995 - 500) / 490
    assert stats.c == pytest.approx(495 / 490, rel=1e-6)
    bars = Thresholds(nulls=(sample(profiles),)).side("writes")
    np.testing.assert_allclose(bars.word_z, [995, 995], rtol=1e-6)
    outside = (profiles > bars.word_z).any(axis=1).mean()
    assert outside == pytest.approx(10 / 1001)


def test_no_spread_at_a_word_sets_the_bar_to_noise_at_its_largest():
    i = np.arange(101) / 100
    flat = np.zeros(101)
    flat[100] = 7.0
    bars = Thresholds(nulls=(sample(np.stack([i, flat], 1)),)).side("writes")
    assert bars.word_z[1] == 7.0


def test_larger_of_two_kinds_wins_per_threshold():
    i = np.arange(101)
    a = sample(np.stack([i, i], 1), cos_tok=i / 100, lev=i / 10)
    b = sample(np.stack([i * 2, i / 2], 1), "decoder_cov", cos_tok=i / 10, lev=i / 100)
    bars = Thresholds(nulls=(a, b)).side("writes")
    np.testing.assert_allclose(bars.word_z, [198, 99])
    assert bars.cos_tok == pytest.approx(9.5)  # the 95th percentile under the envelope rule
    assert bars.lev == pytest.approx(9.5)
    entropy = Thresholds(nulls=(a, b), rule="entropy").side("writes")
    assert entropy.cos_tok == pytest.approx(9.9)
    only = Thresholds(nulls=(a, b), null_kind="isotropic").side("writes")
    np.testing.assert_allclose(only.word_z, [99, 99])


def test_n_is_the_largest_rank_beyond_even_after_a_gap():
    z = np.array([[5, 1, 3.5, 0], [0, 0, 0, 9], [9, 9, 9, 9], [1, 1, 1, 1], [np.nan] * 4], np.float32)
    bars = np.array([4.0, 3.0, 3.0, 3.0])
    assert classes.words_beyond(z, bars).tolist() == [3, 4, 4, 0, 0]


def test_words_beyond_is_exact_at_the_bar_and_blind_without_one():
    bar = 0.1  # float32(0.1) is above it, so it is beyond; the next float32 down is not
    above = np.float32(0.1)
    below = np.nextafter(above, np.float32(0))
    assert float(above) > bar > float(below)
    assert classes.words_beyond(np.array([[above], [below]], np.float32), np.array([bar])).tolist() == [1, 0]
    assert classes.words_beyond(np.array([[9.0]], np.float32), np.array([np.nan])).tolist() == [0]


@pytest.mark.parametrize(
    ("z", "cos", "lev", "want"),
    [
        ([0, 0], 0.9, 0.9, "none"),
        ([9, 0], 0.9, 0.9, "single"),
        ([9, 9], 0.5, 0.0, "coherent"),
        ([9, 9], 0.0, 0.5, "coherent"),
        ([9, 9], 0.49, 0.49, "diffuse"),
        ([0, 9], 0.0, 0.0, "diffuse"),
    ],
)
def test_envelope_classes_by_hand(z, cos, lev, want):
    fixed = (("writes.word_z", 3.0), ("writes.cos_tok", 0.5), ("writes.lev", 0.5))
    bars = Thresholds(fixed=fixed).side("writes")
    row = reader(
        z_max=np.array([9.0], np.float32),
        word_z=np.array([z], np.float32),
        cos_tok=np.array([cos], np.float32),
        lev=np.array([lev], np.float32),
    )
    code, _ = classes.classify(row, bars, "envelope")
    assert classes.CLASS_NAMES[code[0]] == want


@pytest.mark.parametrize(
    ("delta_h", "cos", "z_max", "mass", "want"),
    [
        (3.0, 0.3, 0.0, 0.0, "coherent"),
        (3.0, 0.2, 9.0, 0.5, "single"),
        (0.0, 0.9, 9.0, 0.6, "single"),
        (3.0, 0.2, 9.0, 0.4, "diffuse"),
        (2.9, 0.9, 5.0, 0.9, "none"),
    ],
)
def test_entropy_classes_by_hand(delta_h, cos, z_max, mass, want):
    bars = Thresholds(mode="fixed", rule="entropy", fixed=(("writes.z_max", 5.0),)).side("writes")
    one = {
        "delta_h": delta_h, "cos_tok": cos, "lev": 0.0, "z_max": z_max, "mass_1": mass,
    }  # fmt: skip
    row = reader(**{k: np.array([v], np.float32) for k, v in one.items()}, word_z=np.zeros((1, 2), np.float32))
    code, _ = classes.classify(row, bars, "entropy")
    assert classes.CLASS_NAMES[code[0]] == want


def test_classes_agree_with_the_reference_loops():
    table = make.table(n=200)
    nulls = [n.read("writes") for n in table.thresholds.nulls]
    taus = [reference.envelope(read("word_z").astype(float).tolist()) for read in nulls]
    tau = [max(a, b) for a, b in zip(taus[0][0], taus[1][0], strict=True)]
    bars = table.thresholds.side("writes")
    np.testing.assert_allclose(bars.word_z, tau, rtol=1e-12)
    tau_c, tau_l = (max(reference.percentile(read(m), 95) for read in nulls) for m in ("cos_tok", "lev"))
    assert (bars.cos_tok, bars.lev) == pytest.approx((tau_c, tau_l), rel=1e-12)
    read = table.read("writes")
    seen = set()
    for i in range(table.n):
        want, n = reference.envelope_class(read("word_z")[i], read("cos_tok")[i], read("lev")[i], tau, tau_c, tau_l)
        assert classes.CLASS_NAMES[table.column("class")[i]] == want
        assert table.column("n_words")[i] == n
        seen.add(want)
    assert {"none", "coherent"} < seen


def test_entropy_rule_agrees_with_the_reference_loops():
    table = make.table(n=200)
    table.with_thresholds(dataclasses.replace(table.thresholds, rule="entropy"))
    nulls = [n.read("writes") for n in table.thresholds.nulls]
    bar = {m: max(reference.percentile(read(m), 99) for read in nulls) for m in ("delta_h", "cos_tok", "lev", "z_max")}
    got = [classes.CLASS_NAMES[c] for c in table.column("class")]
    rows = reference.rows_of(table.read("writes"))
    want = [reference.entropy_class(r, bar["delta_h"], bar["cos_tok"], bar["lev"], bar["z_max"]) for r in rows]
    assert got == want
    assert len(set(got)) > 1


def test_evidence_and_first_view_agree_with_the_reference_loops():
    table = make.table(n=60)
    for side in ("writes", "reads"):
        nulls = [reference.rows_of(n.read(side)) for n in table.thresholds.nulls]
        rows = reference.rows_of(table.read(side))
        want = [reference.evidence(row, nulls) for row in rows]
        np.testing.assert_allclose(table.column(f"{side}.evidence"), want, rtol=1e-5)
        units = []
        for rows_of_null in nulls:
            med, p99 = (reference.percentile([r["z_10"] for r in rows_of_null], q) for q in (50, 99))
            units.append([(row["z_10"] - med) / (p99 - med) for row in rows])
        first = [min(a, b) * row["word_share"] for a, b, row in zip(*units, rows, strict=True)]
        np.testing.assert_allclose(table.column(f"{side}.first_view"), first, rtol=1e-5, atol=1e-6)


def test_one_per_cent_of_each_null_lies_above_evidence_one():
    table = make.table()
    for null in table.thresholds.nulls:
        units = (null.stats("writes"),)
        share = (classes.evidence(null.read("writes"), units) > 1).mean()
        assert share == pytest.approx(0.01, abs=0.004)


def test_unclear_needs_all_five_inside():
    i = np.arange(101)
    bars = Thresholds(nulls=(sample(np.stack([i, i], 1)),)).side("writes")
    inside = {m: np.full(6, 99.0, np.float32) for m in reference.METRICS}
    for row, m in enumerate(reference.METRICS):
        inside[m][row] = 99.1
    inside["z_max"][0] = 99.1
    assert classes.unclear(reader(**inside), bars).tolist() == [False] * 5 + [True]
    inside["z_max"][5] = np.nan
    assert not classes.unclear(reader(**inside), bars)[5]


def test_against_is_judged_by_the_writes_null():
    table = make.table()
    np.testing.assert_array_equal(table.thresholds.side("against").word_z, table.thresholds.side("writes").word_z)
    assert table.column("against.class").min() >= 0


def test_bars_move_without_touching_rows():
    table = make.table()
    before = table.column("class").copy()
    version = table.version
    table.with_thresholds(table.thresholds.fix("writes.word_z", 1e9))
    assert (table.column("class") == classes.NONE).all()
    assert table.version > version
    assert table.thresholds.side("writes").how["word_z"].startswith("fixed")
    table.with_thresholds(table.thresholds.fix("writes.word_z", None))
    np.testing.assert_array_equal(table.column("class"), before)


def test_a_wider_envelope_by_hand_lets_less_through():
    table = make.table()
    some = int((table.column("class") > 0).sum())
    c = max(n.stats("writes").c for n in table.thresholds.nulls)
    table.with_thresholds(table.thresholds.fix("writes.c", 3 * c))
    assert int((table.column("class") > 0).sum()) < some


def test_quantile_mode_names_its_pool_and_passes_a_quarter():
    table = make.table()
    bars = population_quantiles([table.column], 0.75)
    chosen = dataclasses.replace(
        table.thresholds, mode="quantile", rule="entropy", quantiles=bars, pool="this SAE alone"
    )
    table.with_thresholds(chosen)
    share = (table.column("delta_h") >= chosen.side("writes").concentrated).mean()
    assert share == pytest.approx(0.25, abs=0.01)
    assert "this SAE alone" in chosen.side("writes").how["delta_h"]
    assert "this SAE alone" in chosen.line()


def test_without_nulls_nothing_is_classified_and_the_reason_is_said():
    table = make.FeatureTable.from_arrays(make.columns(20), vocab=make.vocabulary())
    assert (table.column("class") == classes.UNKNOWN).all()
    assert not table.known("class").any()
    assert np.isnan(table.column("evidence")).all()
    assert not table.column("unclear").any()
    assert not table.thresholds.ready
    assert table.thresholds.missing_kinds == ("isotropic", "decoder_cov")
    assert table.sentence(0) == "NO NULL YET: CLASS UNKNOWN"


def test_a_null_without_finite_rows_sets_no_bar():
    i = np.full((5, 2), np.nan)
    bars = Thresholds(nulls=(sample(i, **{m: np.full(5, np.nan) for m in METRICS}),)).side("writes")
    assert np.isnan(bars.word_z).all()
    assert bars.units == ()


@pytest.mark.parametrize(
    "options",
    [{"rule": "x"}, {"mode": "x"}, {"null_kind": "sign_flip"}, {"concentration": "lev"}, {"mode": "quantile"},
     {"fixed": (("writes.nothing", 1.0),)}, {"fixed": (("cos_tok", 1.0),)}],
)  # fmt: skip
def test_unknown_options_are_refused(options):
    with pytest.raises(UsageError):
        Thresholds(**options)


def test_readings_of_classes_by_hand():
    codes = np.array([classes.UNKNOWN, classes.NONE, classes.SINGLE, classes.COHERENT, classes.DIFFUSE], np.int8)
    want = {
        "semantic": [0, 0, 1, 1, 0], "promotes": [0, 0, 1, 1, 1], "strict": [0, 0, 0, 1, 0],
        "coherent": [0, 0, 0, 1, 0],
        "none": [0, 1, 0, 0, 0], "single": [0, 0, 1, 0, 0], "diffuse": [0, 0, 0, 0, 1],
    }  # fmt: skip
    for name, flags in want.items():
        assert classes.flag(codes, name).tolist() == [bool(f) for f in flags], name
