"""Part of the demo computed once in this process: two SAEs, the heads of one of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import compute_all, finished_demo
from wbtui.catalog.models import find_model
from wbtui.catalog.plan import plan_tokens
from wbtui.catalog.saes import find_sae
from wbtui.definitions import DEFINITIONS
from wbtui.features.table import FeatureTable
from wbtui.report.collect import collect
from wbtui.report.data import ModelData

SAES = ("L3", "L5")


@pytest.fixture(scope="session")
def report_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which the tokens of two SAEs of the demo are complete."""
    cache = finished_demo(tmp_path_factory)  # with L3
    model = find_model("demo")
    for name in SAES:
        compute_all(plan_tokens(model, find_sae(model, name), DEFINITIONS["folded"], cache), cache)
    return cache


@pytest.fixture(scope="session")
def demo(report_cache: Path) -> ModelData:
    """The demo's data, with the heads that read L3."""
    model = find_model("demo")
    return collect(
        model,
        [find_sae(model, name) for name in SAES],
        report_cache,
        lambda sae: FeatureTable.open(report_cache, plan_tokens(model, sae, DEFINITIONS["folded"], report_cache)),
        definition="folded",
        work=lambda plan: compute_all(plan, report_cache),
    )
