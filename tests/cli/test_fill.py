"""Many SAEs at once: what it costs is said first, in figures that hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Commands
from wbtui.catalog.cost import Bill, cost
from wbtui.catalog.models import find_model
from wbtui.catalog.plan import plan_tokens
from wbtui.catalog.plan_attention import plan_attention
from wbtui.catalog.plan_neighbours import plan_neighbours
from wbtui.catalog.saes import find_sae
from wbtui.definitions import DEFINITIONS, AttentionDefinition, NeighboursDefinition
from wbtui.store.products import Product


def test_arithmetic_by_shape(tmp_path: Path) -> None:
    model = find_model("demo")
    sae = find_sae(model, "L0")
    d, v, f, h = model.d_model, model.d_vocab, sae.d_sae, model.d_head
    tokens = plan_tokens(model, sae, DEFINITIONS["folded"], tmp_path)
    assert cost(tokens.tokens, model).flops == 2 * 2 * d * v * f
    assert cost(tokens.nulls[0], model).flops == 2 * 2 * d * v * 2000
    assert cost(tokens.masks["writes"], model).flops == 2 * v * v * d
    heads = plan_attention(model, sae, AttentionDefinition(), tmp_path)
    assert cost(heads.attention, model).flops == model.n_heads * (2 * f * f * h + 4 * f * d * h)
    assert cost(heads.nulls[0], model).flops == model.n_heads * (2 * 2 * 2000 * f * h + 4 * 2000 * d * h)
    assert cost(heads.ov, model).flops == model.n_heads * 2 * f * h * (d + h)
    near = plan_neighbours(model, sae, NeighboursDefinition(), tmp_path)
    assert cost(near.pairs[0].product, model).flops == 2 * 2 * f * near.pairs[0].other.d_sae * d
    for spec in (*tokens.all(), *heads.all(), *near.all()):
        assert cost(spec, model).bytes > 0


def test_bytes_are_those_on_disk(demo_cache: Path) -> None:
    model = find_model("demo")
    plan = plan_tokens(model, find_sae(model, "L3"), DEFINITIONS["folded"], demo_cache)
    for spec in plan.all():
        real = Product(demo_cache, spec).manifest()["bytes"]
        allowed = 0.5 if spec.analysis == "vocab" else 0.03
        assert abs(cost(spec, model).bytes - real) < allowed * real + 16_384, spec.analysis


def test_a_plan_is_printed_and_nothing_done(wbtui: Commands) -> None:
    ran = wbtui("compute", "demo", "--all-layers", "--dry-run", "--json")
    plan = json.loads(ran.out)
    assert ran.code == 0 and ran.err == ""
    assert plan["complete"] == 8 and plan["products"] == 28  # L3 is there, and what all layers share with it
    assert plan["gflop"] > 100 and plan["bytes"] > 10**7
    text = wbtui("compute", "demo", "--release", "saes", "--dry-run").out
    assert "L3-control" in text and "28 products" in text and "complete" in text
    assert wbtui("compute", "demo", "L3", "--dry-run").out.count("complete") == 1


def test_a_release_is_a_folder_or_a_name(wbtui: Commands, tmp_path: Path) -> None:
    here = Path(find_sae(find_model("demo"), "L0").path).parent
    assert (
        wbtui("compute", "demo", "--release", str(here), "--dry-run", "--json").out
        == wbtui("compute", "demo", "--release", here.name, "--dry-run", "--json").out
    )
    ran = wbtui("compute", "demo", "--release", str(tmp_path), "--dry-run")
    assert ran.code == 2 and "no SAE below it" in ran.err


def test_time_from_what_was_measured() -> None:
    assert Bill(flops=10.0).seconds() is None and Bill().seconds() == 0.0
    assert Bill(flops=10.0, measured_flops=5.0, measured_seconds=2.0).seconds(2) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("demo", "--release", "nope"), "one of saes"),
        (("demo", "L0", "--all-layers"), "a model alone"),
        (("demo", "L3", "--executor", "tcp://x:1"), "dask://HOST:PORT"),
        (("demo", "--analysis", "attention"), "no SAE"),
    ],
)
def test_errors_in_one_line(wbtui: Commands, words: tuple[str, ...], said: str) -> None:
    ran = wbtui("compute", *words)
    assert ran.code == 2 and said in ran.err and ran.err.count("\n") == 1


def test_many_jobs_without_a_service(wbtui: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is there: two SAEs' worth of requests end at once, the second with an error of its own."""
    from wbtui.cli import fill
    from wbtui.service.config import ServiceConfig
    from wbtui.service.wishes import ComputeRequest

    real = fill.requests_of

    def with_a_bad_one(*args: object, **more: object) -> list[ComputeRequest]:
        import dataclasses

        good = real(*args, **more)  # type: ignore[arg-type]
        return [*good, dataclasses.replace(good[0], sae="L99")]

    monkeypatch.setattr(fill, "requests_of", with_a_bad_one)
    monkeypatch.setattr(fill, "bill_of", lambda *args: ([], Bill()))
    monkeypatch.setattr(ServiceConfig, "prestart", False)
    ran = wbtui("compute", "demo", "L3", "--no-daemon", "--analysis", "all", "--dry-run")
    assert ran.code == 0
    monkeypatch.setattr(
        fill, "requests_of", lambda *args, **more: with_a_bad_one(args[0], args[1], "tokens", *args[3:], **more)
    )
    ran = wbtui("compute", "demo", "L3", "--no-daemon", "--analysis", "all")
    assert ran.code == 1 and "L99" in ran.err and "1 of 2 computed" in ran.out


def test_each_job_is_named_as_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    from wbtui.cli.fill import Many
    from wbtui.service.wishes import ComputeRequest

    said = Many([ComputeRequest("demo", f"L{n}", {}, "/c", analysis="attention") for n in range(2)], quiet=False)
    for event in (
        {"event": "planned", "job": 4, "request": 0},
        {"event": "planned", "job": 5, "request": 1},
        {"event": "retry", "job": 5, "reason": "was ended by SIGKILL"},
        {"event": "job", "job": 4, "state": "done"},
        {"event": "disconnected"},
        {"event": "planned", "job": 1, "request": 1},
        {"event": "job", "job": 1, "state": "failed"},
    ):
        said(event)
    assert capsys.readouterr().err.splitlines() == [
        "wbtui: L1 attention: second try: was ended by SIGKILL",
        "wbtui: 1 of 2: L0 attention done",
        "wbtui: the service has gone; asking again",
        "wbtui: 2 of 2: L1 attention failed",
    ]
