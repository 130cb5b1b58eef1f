"""E2 of random directions, of samples of partners, and of offsets; what stops it (methods 1.3, 3.4)."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tests.analysis import attention_reference as reference
from tests.analysis.test_attention import ANGLES, CPU, DEFINITIONS, HEAD, ONE, D, check, dense, make_head, random
from wbtui import schema_attention as schema
from wbtui.analysis.attention import project
from wbtui.analysis.attention_pairs import sample, upper_quartile
from wbtui.analysis.attention_record import (
    direction_record,
    feature_record,
    members,
    partition_sums,
    stability,
    usual_gains,
)
from wbtui.analysis.streaming import TileBuffer
from wbtui.definitions import AttentionDefinition
from wbtui.errors import Cancelled, WeightsError


@pytest.mark.parametrize("name", ["content", "offset", "plain"])
def test_directions_against_the_features(name: str) -> None:
    """Random queries against real keys; real queries against a random key that joins the real ones."""
    definition = DEFINITIONS[name]
    head = dataclasses.replace(make_head(definition), softcap=3.0 if definition.softcap else None)
    d, strangers = random(75, D, seed=9), random(13, D, seed=10)
    x, y = (reference.scale_rows(v.numpy(), definition.scale, False, 3.0) for v in (d, strangers))

    def statistics(rows: np.ndarray, others: np.ndarray, **more: object) -> dict[str, np.ndarray]:
        t = dense(head, rows, others, definition)
        # where the query's own term cancels, it is left out of the partition sums as well
        q_terms = t["q"] if definition.bias and head.softcap is not None else np.zeros(len(rows))
        k_terms = t["k"] if definition.bias else np.zeros(len(others))
        return reference.statistics(
            t["scores"], t["cosines"], softcap=head.softcap, query_terms=q_terms, key_terms=k_terms, **more
        )

    own = statistics(x, x)
    as_query = statistics(y, x)
    as_key = statistics(x, y, joins=True, partition=own["partition"])
    wanted = {k: v for k, v in as_query.items() if k.startswith("query")}
    wanted |= {k: v for k, v in as_key.items() if k.startswith("key")}
    of = members(head, project(head, lambda: [d], definition, CPU), definition)
    log_z = partition_sums(of, TileBuffer())
    np.testing.assert_allclose(log_z.numpy(), np.log(own["partition"]), atol=1e-4)
    vectors = project(head, lambda: [strangers], definition, CPU)
    found = direction_record(head, of, log_z, vectors, definition, ONE, TileBuffer())
    check(found, wanted, np.arange(13))
    without = direction_record(head, of, None, vectors, definition, ONE, TileBuffer())
    assert np.isnan(without["key.received"]).all()


def test_a_feature_taken_alone_is_its_own_row() -> None:
    definition, d = AttentionDefinition(), random(75, D, seed=9)
    head = make_head(definition)
    of = members(head, project(head, lambda: [d], definition, CPU), definition)
    whole, log_z = feature_record(head, of, definition, ONE, TileBuffer())
    vectors = project(head, lambda: [d[30:31]], definition, CPU)
    lone = direction_record(head, of, log_z, vectors, definition, ONE, TileBuffer(), joins=False)
    for name, values in lone.items():
        np.testing.assert_allclose(values[0], whole[name][30], rtol=1e-4, atol=1e-6)


def test_uniform_attention_is_one_for_features_and_strangers() -> None:
    """Scores near zero: were a stranger's mass not scaled, every feature would lie beyond a null of strangers."""
    definition, d, strangers = AttentionDefinition(scale="unit"), random(75, D, seed=9), random(300, D, seed=10)
    head = make_head(query=random(D, HEAD, seed=1) * 1e-4, query_bias=None, key_bias=None)
    of = members(head, project(head, lambda: [d], definition, CPU), definition)
    found, log_z = feature_record(head, of, definition, ONE, TileBuffer())
    vectors = project(head, lambda: [strangers], definition, CPU)
    null = direction_record(head, of, log_z, vectors, definition, ONE, TileBuffer())
    np.testing.assert_allclose(found["key.received"], 1, atol=1e-4)
    np.testing.assert_allclose(null["key.received"], 1, atol=1e-4)


def test_gain_is_one_for_random_directions() -> None:
    head = make_head()
    usual = usual_gains(head, AttentionDefinition(), D, CPU)
    d = random(3000, D, seed=77)
    of = members(head, project(head, lambda: [d], AttentionDefinition(), CPU), AttentionDefinition())
    found, _ = feature_record(head, of, AttentionDefinition(), usual, TileBuffer())
    for side in schema.HEAD_SIDES:
        assert np.median(found[f"{side}.gain"]) == pytest.approx(1, abs=0.03)
    unit = d.double() / d.double().norm(dim=1, keepdim=True)
    wanted = (unit @ head.query.double()).norm(dim=1) / usual.query
    np.testing.assert_allclose(found["query.gain"], wanted, rtol=1e-4)


def test_stability_is_the_cosine_of_all_scores() -> None:
    q, k = random(40, HEAD, seed=1), random(50, HEAD, seed=2) + 0.5
    found = stability(q, k, ANGLES, window=100)
    plain = (q.double() @ k.double().T).numpy()
    for offset, cosine in zip(schema.STABILITY_OFFSETS, found, strict=True):
        if offset >= 100:
            assert np.isnan(cosine)
            continue
        turned = q.double().numpy() @ reference.turn_keys(k.double().numpy(), np.array(ANGLES), offset).T
        wanted = (plain * turned).sum() / np.sqrt((plain**2).sum() * (turned**2).sum())
        assert cosine == pytest.approx(wanted, abs=1e-5)
    assert np.isnan(stability(q, k, [])).all()


# --- samples ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("m", [1, 2, 4, 5, 33, 4096])
def test_upper_quartile_is_numpys(m: int) -> None:
    x, others = random(50, 6, seed=1), random(m, 6, seed=2)
    wanted = np.quantile(np.abs(x.double().numpy() @ others.double().numpy().T), 0.75, axis=1)
    np.testing.assert_allclose(upper_quartile(x, others, TileBuffer(), tile=32), wanted, rtol=1e-4, atol=1e-6)


def test_sampled_quartiles_stay_inside_their_stated_error() -> None:
    """Methods 1.3: a sample of 4,096 partners errs by 0.8 % in the median, 3.7 % in the worst of 300 rows."""
    x, others = random(300, 16, seed=1), random(20_000, 16, seed=2)
    chosen = sample(len(others), 4096, 0, "query p75")
    assert chosen is not None and len(set(chosen.tolist())) == 4096
    exact = upper_quartile(x, others, TileBuffer())
    error = (upper_quartile(x, others[chosen], TileBuffer()) / exact - 1).abs()
    assert float(error.median()) < 0.012
    assert float(error.max()) < 0.05
    assert torch.equal(chosen, sample(len(others), 4096, 0, "query p75"))
    assert not torch.equal(chosen, sample(len(others), 4096, 1, "query p75"))
    assert sample(4096, 4096, 0, "query p75") is None


def test_sampled_partners_estimate_and_the_sample_is_exact_when_it_is_all() -> None:
    d = random(3000, D, seed=4)
    exact_definition = AttentionDefinition()
    estimated = AttentionDefinition(pairs_below=100, n_key=1000)
    head = make_head(query=random(D, HEAD, seed=1) * 0.1, key=random(D, HEAD, seed=2) * 0.1)

    def record(definition: AttentionDefinition) -> dict[str, np.ndarray]:
        of = members(head, project(head, lambda: [d], definition, CPU), definition)
        assert (of.keys is None) == (definition is exact_definition)
        found, log_z = feature_record(head, of, definition, ONE, TileBuffer())
        torch.testing.assert_close(log_z, partition_sums(of, TileBuffer()), rtol=0, atol=0)
        return found

    one, two = record(exact_definition), record(estimated)
    for name in ("query.mean_abs", "key.mean_abs", "key.received"):
        assert np.abs(two[name] / one[name] - 1).max() < 0.15, name
        assert np.abs(np.median(two[name] / one[name]) - 1) < 0.02, name
    for side in schema.HEAD_SIDES:
        assert (two[f"{side}.max"] <= one[f"{side}.max"] + 1e-5).all()
        np.testing.assert_array_equal(two[f"{side}.rms"], one[f"{side}.rms"])
    columns = schema.attention_columns()
    as_json = dataclasses.asdict(estimated)
    assert schema.is_estimate(columns["query.max"], 3000, as_json)
    assert not schema.is_estimate(columns["query.rms"], 3000, as_json)
    assert not schema.is_estimate(columns["query.max"], 3000, dataclasses.asdict(exact_definition))
    assert not schema.is_estimate(columns["query.p75"], 3000, as_json)


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_stopping_and_empty_dictionaries() -> None:
    definition, d = AttentionDefinition(), random(75, D, seed=9)
    head = make_head()
    of = members(head, project(head, lambda: [d], definition, CPU), definition)
    with pytest.raises(Cancelled):
        feature_record(head, of, definition, ONE, TileBuffer(), stop=lambda: True)
    with pytest.raises(Cancelled):
        project(head, lambda: [d], definition, CPU, lambda: True)
    with pytest.raises(WeightsError):
        project(head, lambda: [torch.zeros(3, D)], definition, CPU)
