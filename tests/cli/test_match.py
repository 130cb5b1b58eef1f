"""``wbtui match`` on the demo: its figures against a dense float64 product, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.cli.conftest import Commands
from tests.fixtures.models import tiny_model
from tests.fixtures.saes import tiny_sae
from wbtui.catalog.models import DEMO_DIR


def unit(name: str) -> np.ndarray:
    rows = load_file(DEMO_DIR / "saes" / name / "sae_weights.safetensors")["W_dec"].astype("float64")
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_second_seed_and_control_are_the_dense_products(wbtui: Commands, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    ran = wbtui("match", "demo@L3", "L3-seed2", "--no-classes", "--no-daemon", "-q", "--json", "-o", str(folder))
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    cosines = unit("L3") @ unit("L3-seed2").T
    best, back = cosines.max(1), cosines.max(0)
    mutual = cosines.argmax(0)[cosines.argmax(1)] == np.arange(1024)
    assert found["from_a"]["above"]["0.7"] == pytest.approx((best >= 0.7).mean(), abs=1e-6)
    assert found["from_b"]["above"]["0.9"] == pytest.approx((back >= 0.9).mean(), abs=1e-6)
    assert found["from_a"]["mutual"]["any"] == pytest.approx(mutual.mean(), abs=1e-6)
    assert found["counts"]["matched"] == int((mutual & (best >= 0.7)).sum())
    assert found["counts"]["lost"] == int((best < 0.7).sum())
    parents = cosines.argmax(0)[back >= 0.7]
    assert found["counts"]["splits"] == int((np.bincount(parents, minlength=1024) > 1).sum())
    control = (unit("L3") @ unit("L3-control").T).max(1)
    assert found["control"]["from_a"]["median"] == pytest.approx(np.median(control), abs=1e-6)
    random = found["from_a"]["random"]["isotropic"]["median"]
    assert abs(found["control"]["from_a"]["median"] - random) < 0.02, "a decoder frozen at random is random"
    assert found["from_a"]["random"]["isotropic"]["above"]["0.7"] == 0
    assert len((folder / "lost.csv").read_text().splitlines()) == 1 + found["counts"]["lost"]


def test_saes_that_cannot_be_matched_are_one_line(wbtui: Commands, tmp_path: Path) -> None:
    model = tiny_model(tmp_path, "gemma2")
    tiny_sae(model / "saes", model, name="one")
    tiny_sae(model / "saes", model, name="far", layer=0)
    cases = {
        ("demo@L3", "L4"): ("layer 3", "layer 4", "one position"),
        (f"{model}@L1", "L0"): ("layer 1", "layer 0"),
        ("demo@L3", f"{model}@L1"): ("width 192", "one width of stream"),
        ("demo@L3", "L9"): ("layer 9",),
        ("demo@L3#5", "L3-seed2"): ("a feature", "an SAE"),
        ("demo@L3", "L3-seed2#5"): ("L3-seed2#5",),
    }
    wbtui("models")  # what making the model printed is not what is tested
    for words, parts in cases.items():
        ran = wbtui("match", *words, "--no-daemon")
        assert ran.code == 2, (words, ran.err)
        assert len(ran.err.splitlines()) == 1
        assert all(part in ran.err for part in parts), (words, ran.err)
        assert re.fullmatch(r"wbtui: [^;]+; expected [^;]+; .+", ran.err.strip()), ran.err
