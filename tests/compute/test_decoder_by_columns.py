"""A decoder stored ``[d_model, d_sae]`` (Llama Scope), read as it lies: scores and edges are those of dense float64."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.compute.test_questions import Place, Truth, _combined, order
from tests.fixtures.sae_formats import llama_scope
from wbtui.analysis.scores import Scores
from wbtui.compute import ask


def test_find_and_edges_are_the_dense_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, shapes = Place(tmp_path, "llama"), []
    truth = Truth(place.model)
    shutil.rmtree(place.model / "saes" / "L0")  # of two at one place one is asked
    made = llama_scope(place.model / "saes", truth.w_u.shape[1], layer=0)
    rows = made.w_dec.double().numpy()
    plain = ask.score_columns

    def watched(columns: Any, *args: Any, **options: Any) -> Scores:
        shapes.append(tuple(columns.shape))
        return plain(columns, *args, **options)

    monkeypatch.setattr(ask, "score_columns", watched)
    found = place.ask("find", query='w:{"the"}', all_layers=True, top=500)
    assert shapes == [rows.T.shape]
    [name] = {s["sae"] for s in found["saes"]} - {"L1", "L2", "L1-attn", "L1-tc"}
    logits = (rows * truth.gain) @ truth.w_u.T / np.linalg.norm(rows, axis=1, keepdims=True)
    dense = _combined(place, logits, [[place.token("the")]], [])
    hits = [h for h in found["hits"] if h["sae"] == name]
    assert [h["feature"] for h in hits] == order(dense).tolist()
    assert [h["score"] for h in hits] == pytest.approx(dense[order(dense)], abs=1e-5 * np.abs(dense).max())

    edges = place.ask("edges", feature=7, top=500)["up"]
    e = place.weights("L1")[1][7]
    want = rows @ e
    mine = {edge["feature"]: edge["weight"] for edge in edges["edges"] if (edge["sae"], edge["via"]) == (name, "")}
    assert len(mine) > 20 and mine.keys() >= set(np.argsort(-np.abs(want))[:20].tolist())
    assert list(mine.values()) == pytest.approx(want[list(mine)], abs=1e-5 * np.abs(want).max())
