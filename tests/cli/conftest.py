"""A finished demo product in a private cache, computed once in a run, and a way to run commands."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.once import copied_once
from wbtui.catalog.models import find_model
from wbtui.catalog.plan import TokensPlan, plan_tokens
from wbtui.catalog.saes import find_sae
from wbtui.cli import main
from wbtui.compute.work import ShardTask, compute_shard
from wbtui.definitions import DEFINITIONS
from wbtui.store.keys import ProductSpec
from wbtui.store.products import Product

SAE = "L3"


def compute_all(plan: TokensPlan, cache: Path) -> None:
    """Every product of a plan, in this process."""
    compute_specs(plan.all(), cache)


def compute_specs(specs: Iterable[ProductSpec], cache: Path) -> None:
    """Products, in this process; those that are complete stay."""
    for spec in specs:
        product = Product(cache, spec)
        if product.state == "complete":
            continue
        if not spec.rows:
            compute_shard(ShardTask(str(cache), spec.to_json()))
            continue
        product.begin()
        for start, stop in product.missing():
            compute_shard(ShardTask(str(cache), spec.to_json(), start, stop))
        compute_shard(ShardTask(str(cache), spec.to_json(), kind="assemble"))


def finished_demo(factory: pytest.TempPathFactory) -> Path:
    """The caller's own cache in which demo@L3 is complete."""

    def compute(cache: Path) -> None:
        model = find_model("demo")
        compute_all(plan_tokens(model, find_sae(model, SAE), DEFINITIONS["folded"], cache), cache)

    return copied_once(factory, "demo-cache", compute)


@pytest.fixture(scope="session")
def demo_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which demo@L3 is complete."""
    return finished_demo(tmp_path_factory)


@dataclass
class Ran:
    """What a command printed and returned."""

    code: int
    out: str
    err: str


class Commands:
    """Run ``wbtui`` in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: str) -> Ran:
        code = main(list(words))
        captured = self._capsys.readouterr()
        return Ran(code, captured.out, captured.err)


@pytest.fixture
def wbtui(
    demo_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Commands:
    """Commands over the finished cache; a service can neither be found nor started where it would write."""
    monkeypatch.setenv("WBTUI_CACHE_DIR", str(demo_cache))
    monkeypatch.setenv("WBTUI_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("WBTUI_LOG_DIR", str(tmp_path / "log"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("WBTUI_MODEL_ROOTS", "WBTUI_SAE_ROOTS"):
        monkeypatch.delenv(name, raising=False)
    assert os.environ["WBTUI_CACHE_DIR"]
    return Commands(capsys)
