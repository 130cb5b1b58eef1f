"""Every reduced statistic of E2 against dense float64 matrices, and closed forms first (methods 1.3)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests.analysis import attention_reference as reference
from wbtui import schema_attention as schema
from wbtui.analysis.attention import Head, closed_forms, partners, project, scaled
from wbtui.analysis.attention_pairs import ColumnSums, query_pass
from wbtui.analysis.attention_record import (
    Usual,
    feature_record,
    members,
    partition_sums,
)
from wbtui.analysis.attention_tile import Softmax
from wbtui.analysis.rope import turn
from wbtui.analysis.streaming import TileBuffer
from wbtui.definitions import AttentionDefinition

CPU = torch.device("cpu")
D, HEAD = 24, 10
ANGLES = [1.0, 0.3, 0.05]
ONE = Usual(1.0, 1.0)


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


CONTENT = AttentionDefinition()


def make_head(definition: AttentionDefinition = CONTENT, **changes: object) -> Head:
    values: dict = {
        "query": random(D, HEAD, seed=1) * 0.3,
        "key": random(D, HEAD, seed=2) * 0.3,
        "scale": HEAD**-0.5,
        "query_bias": random(HEAD, seed=3),
        "key_bias": random(HEAD, seed=4),
        "softcap": 3.0,
        "turn": turn(ANGLES, definition),
    }
    return Head(**(values | changes))


def dense(head: Head, x: np.ndarray, others: np.ndarray, definition: AttentionDefinition) -> dict[str, np.ndarray]:
    """Scores of rows as queries against ``others`` as keys, cosines and bias terms, in float64."""
    q = x @ head.query.double().numpy()
    k = others @ head.key.double().numpy()
    b_q = np.zeros(HEAD) if head.query_bias is None else head.query_bias.double().numpy()
    b_k = np.zeros(HEAD) if head.key_bias is None else head.key_bias.double().numpy()
    angles = np.array(ANGLES)
    if definition.rope == "offset":
        k, b_k = (reference.turn_keys(y, angles, definition.offset) for y in (k, b_k[None]))
    elif definition.rope == "mean":
        k, b_k = (
            np.mean([reference.turn_keys(y, angles, o) for o in range(definition.offsets)], axis=0)
            for y in (k, b_k[None])
        )
    scores = q @ k.T * head.scale
    norms = np.linalg.norm(q, axis=1)[:, None] * np.linalg.norm(k, axis=1)
    terms_q = (q + b_q) @ np.ravel(b_k) * head.scale
    return {"scores": scores, "cosines": q @ k.T / norms, "q": terms_q, "k": k @ b_q * head.scale}


def check(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray], rows: np.ndarray) -> None:
    for name, column in schema.attention_columns().items():
        if name in ("query.gain", "key.gain") or name not in wanted:
            continue
        ours, theirs = found[name][rows], wanted[name]
        assert found[name].dtype == column.dtype, name
        if name.endswith("partner"):
            np.testing.assert_array_equal(ours, theirs, err_msg=name)
            continue
        size = np.sqrt((theirs.astype(float) ** 2).mean())
        assert np.abs(ours - theirs).max() < 1e-4 * max(size, 1e-9), name


DEFINITIONS = {
    "content": AttentionDefinition(),
    "offset": AttentionDefinition(offset=7),
    "mean": AttentionDefinition(rope="mean", offsets=9),
    "unit": AttentionDefinition(scale="unit"),
    "act": AttentionDefinition(scale="act", activation=6.0, stream_rms=2.0),
    "plain": AttentionDefinition(softcap=False, bias=False),
}


# --- closed forms -----------------------------------------------------------------------------------------------------


def test_closed_forms_of_made_up_vectors() -> None:
    """Two keys, known by hand: scores 3 and -4 give mean -0.5 and RMS sqrt(12.5)."""
    keys = torch.tensor([[3.0, 0.0], [-4.0, 0.0]])
    found = closed_forms(torch.tensor([[1.0, 5.0]]), partners(keys), torch.tensor([2.0]), 4.0)
    assert float(found["mean"]) == pytest.approx(-0.5)
    assert float(found["rms"]) == pytest.approx(12.5**0.5)
    assert float(found["cos_rms"]) == pytest.approx(1 / 26**0.5)
    assert float(found["gain"]) == 0.5


@pytest.mark.parametrize("n", [5, 2048, 5000])
def test_closed_rms_equals_the_explicit_one(n: int) -> None:
    q, k = random(n, 8, seed=0) * torch.logspace(-3, 2, 8), random(n, 8, seed=1) * torch.logspace(2, -3, 8) + 1
    found = closed_forms(q, partners(k), torch.ones(n), 1.0)
    scores = q.double() @ k.double().T
    torch.testing.assert_close(found["rms"].double(), scores.square().mean(1).sqrt(), rtol=1e-4, atol=0)
    torch.testing.assert_close(found["mean"].double(), scores.mean(1), rtol=0, atol=1e-5 * float(scores.std()))


# --- all statistics ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("centre", [False, True])
@pytest.mark.parametrize("name", DEFINITIONS)
def test_every_statistic(name: str, centre: bool) -> None:
    definition = DEFINITIONS[name]
    d = random(75, D, seed=9) + 0.4
    d[11], d[40, 3] = 0.0, float("nan")
    if centre:
        d[20] = 2.5
    bad = np.array([11, 40] + ([20] if centre else []))
    good = np.setdiff1d(np.arange(75), np.sort(bad))
    matrices = {k: random(D, HEAD, seed=s) * 0.3 for k, s in (("query", 1), ("key", 2))}
    if centre:
        matrices = {k: m - m.mean(0) for k, m in matrices.items()}
    head = make_head(definition, centre=centre, **matrices)
    if not definition.softcap:
        head = dataclasses.replace(head, softcap=None)
    x = reference.scale_rows(d.numpy()[good], definition.scale, centre, 3.0)
    truth = dense(head, x, x, definition)
    wanted = reference.statistics(
        truth["scores"],
        truth["cosines"],
        softcap=head.softcap,
        query_terms=truth["q"] if definition.bias else None,
        key_terms=truth["k"],
    )
    wanted["key.prior"] = truth["k"]
    for part in ("query", "key"):
        wanted[f"{part}.partner"] = good[wanted[f"{part}.partner"]]
    records = {}
    for tile in (32, 64, 128):
        of = members(head, project(head, lambda: d.split(20), definition, CPU), definition)
        records[tile], log_z = feature_record(head, of, definition, ONE, TileBuffer(), tile=tile)
        check(records[tile], wanted, good)
        torch.testing.assert_close(log_z, partition_sums(of, TileBuffer(), tile=tile), rtol=0, atol=0)
    assert set(records[32]) == set(schema.attention_columns())
    for column, values in records[32].items():
        for other in (64, 128):
            assert values.tobytes() == records[other][column].tobytes(), f"{column} depends on the tile"
        absent = values[bad]
        assert (absent == -1).all() if values.dtype == np.int32 else np.isnan(absent).all(), column
        assert np.isfinite(values[good]).all(), column
    np.testing.assert_allclose(records[64]["key.received"][good].sum(), len(good), rtol=1e-5)


def test_two_passes_have_equal_bytes_and_ties_go_to_the_first() -> None:
    """Twins share every score: the peak's partner is the smaller number."""
    half = torch.round(random(40, D, seed=5) * 4) / 4
    d = torch.cat([half, half])
    definition = AttentionDefinition(scale="act", activation=1.0, stream_rms=1.0)
    head = make_head(definition, query=torch.round(random(D, HEAD, seed=1) * 4) / 4, key=torch.eye(D)[:, :HEAD])
    head = dataclasses.replace(head, scale=1.0)

    def run() -> dict[str, np.ndarray]:
        of = members(head, project(head, lambda: [d], definition, CPU), definition)
        return feature_record(head, of, definition, ONE, TileBuffer(), tile=32)[0]

    one, two = run(), run()
    assert all(one[name].tobytes() == two[name].tobytes() for name in one)
    for side in schema.HEAD_SIDES:
        assert one[f"{side}.partner"].max() < 40
        np.testing.assert_array_equal(one[f"{side}.partner"][:40], one[f"{side}.partner"][40:])


def test_bound_is_above_every_offset_and_has_no_softmax() -> None:
    bound, d = AttentionDefinition(rope="bound"), random(40, D, seed=9)

    def record(definition: AttentionDefinition) -> dict[str, np.ndarray]:
        head = make_head(definition)
        of = members(head, project(head, lambda: [d], definition, CPU), definition)
        return feature_record(head, of, definition, ONE, TileBuffer())[0]

    limit = record(bound)
    for name in ("query.top1", "query.top5", "query.conc", "key.received"):
        assert np.isnan(limit[name]).all()
    x = reference.scale_rows(d.numpy(), "rms", False)
    head = make_head()
    q, k = x @ head.query.double().numpy() * head.scale, x @ head.key.double().numpy()
    half = len(ANGLES)
    pair: Callable[[np.ndarray], np.ndarray] = lambda y: np.hypot(y[:, :half], y[:, half : 2 * half])  # noqa: E731
    scores = pair(q) @ pair(k).T + q[:, 2 * half :] @ k[:, 2 * half :].T
    np.testing.assert_allclose(limit["query.max"], scores.max(1), rtol=1e-4)
    np.testing.assert_allclose(limit["key.rms"], np.sqrt((scores**2).mean(0)), rtol=1e-4)
    for offset in range(0, 60, 3):
        assert (record(AttentionDefinition(offset=offset))["query.max"] <= limit["query.max"] * (1 + 1e-5)).all()


def test_extreme_scores_stay_finite() -> None:
    """At rms scale the softmax is near one-hot; exponents must not overflow and masses must still sum to one."""
    definition, d = AttentionDefinition(), random(64, D, seed=3)
    head = make_head(query=random(D, HEAD, seed=1) * 40, key=random(D, HEAD, seed=2) * 40, softcap=None)
    of = members(head, project(head, lambda: [d], definition, CPU), definition)
    found, _ = feature_record(head, of, definition, ONE, TileBuffer())
    assert found["query.max"].max() > 1000
    assert all(np.isfinite(values).all() for values in found.values())
    assert found["query.top1"].max() == 1.0
    assert found["key.received"].sum() == pytest.approx(64, rel=1e-5)


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_a_handful_of_features(n: int) -> None:
    definition, d = AttentionDefinition(), random(n, D, seed=3)
    head = make_head()
    of = members(head, project(head, lambda: [d], definition, CPU), definition)
    found, _ = feature_record(head, of, definition, ONE, TileBuffer())
    assert all(np.isfinite(values).all() for values in found.values())
    assert found["query.top5"] == pytest.approx(1.0, abs=1e-6) or n > 5
    if n == 1:
        assert (found["query.top1"][0], found["query.conc"][0], found["key.received"][0]) == (1.0, 0.0, 1.0)


def test_scales() -> None:
    d = random(6, D, seed=2) + 1
    for centre in (False, True):
        x, length, good = scaled(d, AttentionDefinition(), centre)
        seen = x - x.mean(1, keepdim=True) if centre else x
        torch.testing.assert_close(seen.norm(dim=1), torch.full((6,), D**0.5))
        torch.testing.assert_close(length, torch.full((6,), D**0.5, dtype=torch.float64))
        assert good.all()
        for factor in (1e-37, 1e30):
            again, _, fine = scaled(d * factor, AttentionDefinition(), centre)
            assert fine.all()
            torch.testing.assert_close(again, x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("softcap", [None, 4.0])
@pytest.mark.parametrize(("n", "m", "tile"), [(64, 40, 32), (100, 3000, 32), (130, 1024, 64), (37, 1025, 128)])
def test_the_core_of_the_pass_is_the_whole_pass_without_partners(n: int, m: int, tile: int, softcap: Any) -> None:
    """Sizes that the tile, the group of 32 rows and the chunk of 1,024 columns divide, and that they do not."""
    q, k = random(n, 8, seed=1), random(m, 8, seed=2)
    terms = torch.zeros(n), torch.zeros(m)
    softmax = Softmax(softcap, False)
    whole_columns, core_columns = ColumnSums(m, CPU), ColumnSums(m, CPU)
    whole = query_pass(q, terms[0], k, terms[1], softmax, TileBuffer(), tile=tile, columns=whole_columns)
    core = query_pass(q, terms[0], k, terms[1], softmax, TileBuffer(), tile=tile, columns=core_columns, partners=False)
    assert set(core) == {"mean_abs", "max", "log_z"}
    for name, values in core.items():
        assert torch.equal(values, whole[name]), name
    for name in ("abs", "received", "max"):
        assert torch.equal(getattr(core_columns, name), getattr(whole_columns, name)), name
    dense = q.double() @ k.double().T
    logits = dense if softcap is None else softcap * torch.tanh(dense / softcap)
    torch.testing.assert_close(core["mean_abs"], dense.abs().mean(1), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(core["log_z"], logits.logsumexp(1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(core_columns.abs, dense.abs().sum(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(core_columns.received, logits.softmax(1).sum(0), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(core_columns.max.double(), dense.amax(0), rtol=1e-5, atol=1e-6)
    assert torch.equal(whole_columns.argmax, dense.argmax(0))


@pytest.mark.parametrize("partners", [False, True])
@pytest.mark.parametrize("softmax", [Softmax(None, False), Softmax(None, True), Softmax(200.0, False)])
def test_the_peak_may_come_in_a_later_chunk(softmax: Softmax, partners: bool) -> None:
    """Logits beyond fp32's exponents, the largest ones in the last of three chunks."""
    q, k = random(70, 8, seed=1) * 20, random(3000, 8, seed=2)
    k[2500:] *= 4
    terms = random(3000, 1, seed=3)[:, 0]
    columns = ColumnSums(3000, CPU)
    found = query_pass(q, torch.zeros(70), k, terms, softmax, TileBuffer(), columns=columns, partners=partners)
    logits = q.double() @ k.double().T + (terms.double() if softmax.biased else 0.0)
    logits = logits if softmax.softcap is None else softmax.softcap * torch.tanh(logits / softmax.softcap)
    assert logits.max() > 128
    torch.testing.assert_close(found["log_z"], logits.logsumexp(1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(columns.received, logits.softmax(1).sum(0), rtol=1e-3, atol=1e-6)


def test_equal_maxima_of_a_column_go_to_the_first_row() -> None:
    """Also across tiles: rows 10 and 70 are one query."""
    q, k = random(96, 8, seed=1), random(50, 8, seed=2)
    q[10] = 5 * q[10]
    q[70] = q[10]
    columns = ColumnSums(50, CPU)
    query_pass(q, torch.zeros(96), k, torch.zeros(50), Softmax(None, False), TileBuffer(), tile=32, columns=columns)
    best = (q.double() @ k.double().T).argmax(0)
    assert 10 in best.tolist()
    assert 70 not in columns.argmax.tolist()
    assert torch.equal(columns.argmax, torch.where(best == 70, 10, best))


def test_denormals_are_as_they_were_after_a_pass() -> None:
    q = random(32, 8, seed=1)
    tiny = torch.tensor(1e-30) * torch.tensor(1e-10)
    query_pass(q, torch.zeros(32), q, torch.zeros(32), Softmax(None, False), TileBuffer())
    assert torch.tensor(1e-30) * torch.tensor(1e-10) == tiny > 0
