"""What is planted is found, what is not planted is not: no verdict is written down anywhere."""

from __future__ import annotations

import numpy as np
import pytest

from tests.report import made
from wbtui.errors import UsageError
from wbtui.features.thresholds import population_quantiles
from wbtui.report import attention, semantic, tokens
from wbtui.report.hypotheses import CONFIRMED, NOT, OPPOSITE, UNKNOWN, Hypothesis, hypotheses, judge


def _judge(data, n_perm: int = 60) -> list[Hypothesis]:
    return hypotheses(data, semantic.Effects(data, n_perm))


def _rows(found: list[Hypothesis], row: int, word: str = "") -> list[Hypothesis]:
    return [h for h in found if h.row == row and word in h.reading]


@pytest.mark.parametrize(("effect", "verdict"), [(0.5, CONFIRMED), (-0.5, OPPOSITE)])
def test_magnitudes_follow_what_was_planted(effect, verdict):
    found = _judge(made.model(4, effect=effect))
    judged = [h for h in _rows(found, 14, "RMS") if "by writes" in h.reading]
    assert [h.verdict for h in judged] == [verdict, verdict]
    assert all(np.sign(h.value) == np.sign(effect) for h in judged)
    distinct = next(h for h in _rows(found, 5) if "by writes" in h.reading)
    assert distinct.verdict == CONFIRMED


def test_every_row_of_the_list_is_there_and_says_how_it_was_judged():
    found = _judge(made.model(3))
    assert {h.row for h in found} == {3, 4, 5, 11, 12, 13, 14, 15}
    for h in found:
        assert h.verdict in (CONFIRMED, NOT, OPPOSITE, UNKNOWN)
        if h.verdict != UNKNOWN:
            assert h.null and h.pool and h.value is not None
        if h.row in (3, 4, 11):
            assert "over layer" in h.threshold


def test_the_side_that_varies_over_depth_is_named():
    levels = np.array([1, 3, 0.5, 4, 0.7, 2, 1])
    key = {h.reading.rsplit(" ", 1)[1]: h for h in _rows(_judge(made.model(7, key_levels=levels)), 13)}
    assert key["p75"].verdict == key["max"].verdict == CONFIRMED and key["p75"].value > 0.3
    query = {h.reading.rsplit(" ", 1)[1]: h for h in _rows(_judge(made.model(7, query_levels=levels)), 13)}
    assert query["p75"].verdict == OPPOSITE and query["p75"].value < -0.3


def test_four_layers_cannot_tell_variation():
    found = _rows(_judge(made.model(4)), 13)  # three layers have heads: 8 arrangements
    assert {h.verdict for h in found} == {UNKNOWN} and "p below 0.12" in found[0].remark


def test_shapes_need_twelve_layers():
    assert {h.verdict for h in _rows(_judge(made.model(6)), 11)} == {UNKNOWN}
    found = _rows(_judge(made.model(13)), 11)
    assert {h.verdict for h in found} <= {CONFIRMED, NOT} and all("curvature" in h.remark for h in found)


def test_participation_stands_against_fresh_noise():
    lifted = _rows(_judge(made.model(3, lift=0.6)), 4, "more features")
    assert [h.verdict for h in lifted] == [CONFIRMED, CONFIRMED]
    lowered = _rows(_judge(made.model(3, lift=-0.6)), 4, "more features")
    assert CONFIRMED not in [h.verdict for h in lowered]


def test_a_claim_about_llama_is_judged_on_llama_alone():
    (gemma,) = _rows(_judge(made.model(3, effect=0.5)), 15)
    assert gemma.verdict == UNKNOWN and "gemma2" in gemma.remark and gemma.value > 1.2
    (llama,) = _rows(_judge(made.model(3, effect=0.5, model_type="llama")), 15)
    assert llama.verdict == CONFIRMED


def test_without_heads_nothing_is_claimed_about_attention():
    found = _judge(made.model(3, with_heads=False))
    for h in found:
        if h.row in (4, 5, 12, 13, 15):
            assert (h.verdict, h.value) == (UNKNOWN, None) and "attention is not computed" in h.remark
    assert {h.verdict for h in _rows(found, 14, "encoder")} <= {CONFIRMED, NOT, OPPOSITE}


def test_shuffled_labels_are_rarely_called_distinct():
    # the whole chain, from groups to the pooled statistic, on made models without an effect
    wrong = {"ks": 0, "delta": 0}
    runs = 20
    for seed in range(runs):
        data = made.model(2, seed=seed + 1)
        effects = semantic.Effects(data, 60, seed)
        for what in wrong:
            found = semantic.pooled(effects.of("semantic.writes"), what)
            assert found is not None
            wrong[what] += judge(found, direction=what == "delta") != NOT
    # 60 permutations place the bounds a little inside; 20 runs at 5 % (D: 2.5 %)
    assert wrong["delta"] / runs <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)
    assert wrong["ks"] / runs <= 0.025 + 3 * np.sqrt(0.025 * 0.975 / runs)


def test_a_per_layer_quantile_draws_no_curve():
    data = made.model(3)
    for sae in data.saes:
        quantiles = population_quantiles([sae.table.column], 0.75)
        sae.table.with_thresholds(type(sae.table.thresholds)(mode="quantile", quantiles=quantiles, pool=sae.name))
    with pytest.raises(UsageError, match="per-layer quantile"):
        tokens.share_profile(data, "writes", "semantic")
    pooled = population_quantiles([sae.table.column for sae in data.saes], 0.75)
    for sae in data.saes:
        sae.table.with_thresholds(type(sae.table.thresholds)(mode="quantile", quantiles=pooled, pool="all layers"))
    assert tokens.share_profile(data, "writes", "semantic").cut.scope == "model"


def test_any_head_uses_the_maximum_over_heads():
    data = made.model(2)
    heads = data.saes[0].heads
    assert heads is not None
    values = heads.values("query.rms") / heads.bars("query.rms")[:, None]
    bar = max(
        np.percentile((n.columns["query.rms"].astype(float) / heads.bars("query.rms")[:, None]).max(0), 99)
        for n in heads.nulls
    )
    assert attention.any_head(data.saes[0], "query")[:2] == (int((values.max(0) > bar).sum()), 120)
    assert heads.any_bar("query.rms") == bar > 1  # the maximum of three heads passes one head's bar more often
    noise = attention.any_head(data.saes[0], "query")[2]
    assert noise < 0.04  # near 1 %, where one head's own bars would let nearly 3 % pass


def test_a_head_that_was_refused_leaves_the_others():
    data = made.model(2)
    heads = data.saes[0].heads
    assert heads is not None
    for name in list(heads.columns):
        if heads.columns[name].dtype.kind == "f":
            heads.columns[name][:, 7] = np.nan  # a feature without a direction
    assert np.isnan(heads.strongest("key.rms")[7]) and attention.any_head(data.saes[0], "key")[1] == 119
    rows = semantic.effect_rows(data, semantic.Effects(data, 20))
    assert all(r["n_semantic"] + r["n_other"] == 119 for r in rows)


def test_one_sae_a_layer_is_in_the_curve():
    data = made.model(3)
    second = made.info(1, 3, "L1-seed2")
    wider = made.info(2, 3, "L2-wide", d_sae=500)
    data.saes += [made.SaeData(second, data.saes[1].table), made.SaeData(wider, data.saes[2].table)]
    (line,) = made.mark_extras(data.saes)
    assert [s.name for s in data.curve] == ["L0", "L1", "L2"]
    assert "L1-seed2, L2-wide" in line
