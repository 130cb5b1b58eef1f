"""``wbtui check``: passes on models as they are, fails when one convention is wrong, says what it could not compare."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.fixtures import tiny_model, tiny_sae
from wbtui.catalog import model_table
from wbtui.catalog.models import find_model
from wbtui.catalog.saes import find_sae
from wbtui.check.compare import Row
from wbtui.check.published import INDEX, entries, entries_for
from wbtui.check.work import check
from wbtui.cli import main
from wbtui.errors import WeightsError


def asked(model: Path, sae: Path | None = None, **more: Any) -> dict[str, Any]:
    info = find_model(str(model))
    found = None if sae is None else dataclasses.asdict(find_sae(info, str(sae)))
    return check({"model": info.path, "name": "tiny", "sae": found, "prompts": ["the cat sat on the mat 123"], **more})


def row(answer: dict[str, Any], what: str) -> dict[str, Any]:
    return next(r for r in answer["rows"] if r["what"] == what)


@pytest.mark.parametrize(
    "model_type", ["gpt2", "gpt_neox", "gemma2", "qwen3_moe", "gemma3", "olmo2", "phi", "phi3", "gpt_oss", "qwen3_5"]
)
def test_every_kind_of_model_passes(tmp_path: Path, model_type: str) -> None:
    answer = asked(tiny_model(tmp_path, model_type, seed=2))
    assert answer["passed"]
    for what in ("embedding", "logits", "attention scores", "head outputs"):
        assert row(answer, what)["passed"] and row(answer, what)["difference"] < 1e-4, what
    if model_type == "qwen3_5":
        assert "no heads" in answer["rows"][-1]["why"]


@pytest.mark.parametrize(
    ("model_type", "fields", "attention", "fails"),
    [
        ("gemma2", {"gain_offset": 0.0}, {}, {"logits", "attention scores", "head outputs"}),
        ("gemma3", {"embedding_scale": "one"}, {}, {"embedding"}),
        ("gpt_oss", {}, {"sinks": None}, {"attention scores"}),
        ("qwen3_5", {}, {"gated": False}, None),
        ("olmo2", {"post_attention_norm": "layers.{l}.post_feedforward_layernorm.weight"}, {}, {"head outputs"}),
        ("phi", {}, {"qk_norm": "head"}, {"attention scores"}),
        ("gpt2", {"norm": "rms"}, {}, {"logits", "attention scores", "head outputs"}),
    ],
)
def test_a_wrong_convention_fails(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model_type: str,
    fields: Any,
    attention: Any,
    fails: set[str] | None,
) -> None:
    """GIVEN a table with one fact wrong THEN the check fails there, or refuses the tensors' shapes (None)."""
    model = tiny_model(tmp_path, model_type, seed=2)
    right = model_table.ARCHITECTURES[model_type]
    wrong = dataclasses.replace(right, attention=dataclasses.replace(right.attention, **attention), **fields)
    monkeypatch.setitem(model_table.ARCHITECTURES, model_type, wrong)
    if fails is None:
        with pytest.raises(WeightsError):
            asked(model)
        return
    answer = asked(model)
    assert {r["what"] for r in answer["rows"] if r["passed"] is False} == fails
    assert not answer["passed"]


def test_weights_that_are_not_finite_are_an_error(tmp_path: Path) -> None:
    model = tiny_model(tmp_path, "llama")
    weights = load_file(model / "model.safetensors")
    weights["model.layers.1.self_attn.v_proj.weight"][0, 0] = float("nan")
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="layer 1.*not finite"):
        asked(model)


def test_a_model_that_memory_cannot_hold_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wbtui.check import forward
    from wbtui.errors import WorkError

    model = tiny_model(tmp_path, "llama", sharded=True)
    assert forward.bytes_needed(model) == 4 * sum(
        t.numel() for path in model.glob("*.safetensors") for t in load_file(path).values()
    )
    monkeypatch.setattr(forward, "bytes_available", lambda: 1000)
    with pytest.raises(WorkError, match="in float32"):
        asked(model)


def test_a_difference_that_is_no_number_fails() -> None:
    assert Row("logits", "", float("nan"), 1e-3, "").passed is False
    assert Row("logits", "", None, 1e-3, "").passed is None


def test_published_tokens(tmp_path: Path) -> None:
    """GIVEN an entry about this very file THEN its tokens are compared; about another file, not."""
    from transformers import AutoTokenizer

    model = tiny_model(tmp_path, "llama")
    sae = tiny_sae(tmp_path, model, d_sae=12)
    weights = load_file(sae / "sae_weights.safetensors")
    tensors = load_file(model / "model.safetensors")
    logits = weights["W_dec"][3] * tensors["model.norm.weight"] @ tensors["lm_head.weight"].T
    tokenizer = AutoTokenizer.from_pretrained(model)
    top = [tokenizer.decode([int(i)]) for i in logits.topk(5).indices]
    info = find_sae(find_model(str(model)), str(sae))
    digest = hashlib.sha256((sae / "sae_weights.safetensors").read_bytes()).hexdigest()
    entry = {"hook_name": info.hook_name, "d_sae": 12, "decoder_sha256": digest, "source": "made by this test"}
    index = tmp_path / "index.json"

    def answer(tokens: list[str], **changes: Any) -> dict[str, Any]:
        made = entry | {"features": {"3": {"top": tokens}}} | changes
        index.write_text(json.dumps({"format": 1, "entries": [made]}))
        return row(asked(model, sae, index=str(index)), "published top tokens")

    assert answer(top)["difference"] == 0 and answer(top)["passed"]
    assert answer([*top[:4], "nowhere"])["passed"], "one may differ"
    assert not answer([*top[:3], "nowhere", "never"])["passed"]
    assert answer(top, decoder_sha256="0")["passed"] is None
    index.write_text('{"format": 2}')
    with pytest.raises(WeightsError, match="format"):
        entries_for(info, index)


def test_the_index_that_is_shipped_is_readable_and_says_where_values_are_from() -> None:
    for entry in entries(INDEX):
        assert entry["source"] and entry["decoder_sha256"] and entry["features"]


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The table, the JSON and the exit codes; the process of the check itself, once."""
    model = tiny_model(tmp_path, "gpt_neox")
    torch.manual_seed(0)
    assert main(["check", str(model), "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "3 prompts" in out and "attention scores" in out and out.count("pass") == 4

    from wbtui.cli import check as module

    rows = [
        Row("logits", "prompt 1", float("inf"), 1e-3, "of a row's standard deviation"),
        Row("embedding", "", None, 1e-3, "", "a reason"),
    ]
    answer = {"model_type": "gpt_neox", "prompts": "1 prompt", "tokens": 3, "rows": [r.to_json() for r in rows]}
    monkeypatch.setattr(module, "ask", lambda *_, **__: answer | {"passed": False})
    assert main(["check", str(model)]) == 1
    shown = capsys.readouterr()
    assert "FAIL" in shown.out and "a reason" in shown.out and "logits differ" in shown.err
    assert main(["check", str(model), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["rows"][0]["difference"] is None
    assert main(["check", "nothing-here"]) == 2


def test_a_process_that_dies_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    from wbtui.cli import check as module
    from wbtui.cli import process
    from wbtui.errors import WorkError

    dead = subprocess.CompletedProcess([], -9, stdout="", stderr="")
    monkeypatch.setattr(process.subprocess, "run", lambda *_, **__: dead)
    with pytest.raises(WorkError, match="signal 9.*memory"):
        module.ask({})
