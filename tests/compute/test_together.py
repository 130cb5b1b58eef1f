"""Features side by side: cosines and effective rank against dense float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from tests.fixtures.models import tiny_model
from tests.fixtures.saes import tiny_sae
from wbtui.catalog.models import find_model
from wbtui.catalog.plan import plan_tokens
from wbtui.catalog.saes import find_sae
from wbtui.compute.ask import compute_ask
from wbtui.compute.together import effective_rank
from wbtui.definitions import DEFINITIONS
from wbtui.errors import UsageError


def test_effective_rank_in_closed_form() -> None:
    assert effective_rank(torch.eye(5)) == pytest.approx(5)
    assert effective_rank(torch.ones(4, 7)) == pytest.approx(1)
    assert effective_rank(torch.zeros(3, 7)) == 0
    two = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    share = np.array([np.sqrt(2), 1]) / (np.sqrt(2) + 1)
    assert effective_rank(two) == pytest.approx(np.exp(-(share * np.log(share)).sum()))


@pytest.mark.parametrize("kind", ["gemma2", "gpt2"])
def test_cosines_and_rank_are_the_dense_ones(tmp_path: Path, kind: str) -> None:
    folder = tiny_model(tmp_path, kind)
    tiny_sae(folder / "saes", folder, d_sae=60, zero_rows=(9,), name="one")
    model = find_model(str(folder))
    sae = find_sae(model, str(folder / "saes" / "one"))
    plan = plan_tokens(model, sae, DEFINITIONS["folded"], tmp_path / "cache")
    request = {"cache": str(tmp_path / "cache"), "spec": plan.tokens.to_json(), "what": "set"}
    wanted = [50, 9, 3, 7, 3]
    answer = compute_ask({**request, "args": {"rows": wanted}})
    rows = load_file(folder / "saes" / "one" / "sae_weights.safetensors")["W_dec"].astype("float64")[[50, 3, 7, 3]]
    if kind == "gpt2":
        rows = rows - rows.mean(1, keepdims=True)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert answer["features"] == [50, 3, 7, 3]
    assert answer["absent"] == [9]
    assert np.array(answer["cosines"]) == pytest.approx(rows @ rows.T, abs=6e-5)
    values = np.linalg.svd(rows, compute_uv=False)
    share = values[values > 1e-6] / values.sum()
    assert answer["rank"] == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-4)
    assert set(answer["null"]) == {"isotropic", "decoder_cov"}
    width = rows.shape[1]
    draw = np.random.default_rng(0).standard_normal((400, width))
    if kind == "gpt2":
        draw -= draw.mean(1, keepdims=True)
    draw /= np.linalg.norm(draw, axis=1, keepdims=True)
    pairs = np.abs(draw @ draw.T)[np.triu_indices(400, 1)]
    assert answer["null"]["isotropic"]["pair_p99"] == pytest.approx(np.quantile(pairs, 0.99), abs=0.04)
    for bad in ([], [60], [-1], ["x"], [True], list(range(60)) * 4):
        with pytest.raises(UsageError) as told:
            compute_ask({**request, "args": {"rows": bad}})
        assert told.value.expected and told.value.do


@pytest.mark.parametrize("kind", ["gemma2", "gpt2"])
def test_features_of_several_saes_stand_in_one_stream(tmp_path: Path, kind: str) -> None:
    """Widths differ, and one lives in front of W_O: rows are compared where they meet, in the residual stream."""
    folder = tiny_model(tmp_path, kind)
    saes = folder / "saes"
    tiny_sae(saes, folder, d_sae=60, name="one")
    tiny_sae(saes, folder, d_sae=33, zero_rows=(4,), name="two", seed=5)
    model = find_model(str(folder))
    plan = plan_tokens(model, find_sae(model, str(saes / "one")), DEFINITIONS["folded"], tmp_path / "cache")
    request = {"cache": str(tmp_path / "cache"), "spec": plan.tokens.to_json(), "what": "set"}
    one, two = (find_sae(model, str(saes / name)).name for name in ("one", "two"))
    members = [[two, 32], [one, 50], [two, 4], [one, 3], [two, 0]]
    answer = compute_ask({**request, "args": {"members": members}})
    files = {
        name: load_file(saes / name / "sae_weights.safetensors")["W_dec"].astype("float64") for name in ("one", "two")
    }
    rows = np.array([files["two"][32], files["one"][50], files["one"][3], files["two"][0]])
    if kind == "gpt2":
        rows = rows - rows.mean(1, keepdims=True)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert (answer["saes"], answer["features"]) == ([two, one, one, two], [32, 50, 3, 0])
    assert (answer["absent_saes"], answer["absent"]) == ([two], [4])
    assert np.array(answer["cosines"]) == pytest.approx(rows @ rows.T, abs=6e-5)
    assert all(null["rank"] > 1 and null["n"] >= 96 for null in answer["null"].values())
    for bad in ([["none", 1]], [[two, 33]], [[one]], [[one, "3"]]):
        with pytest.raises(UsageError) as told:
            compute_ask({**request, "args": {"members": bad}})
        assert told.value.expected and told.value.do
