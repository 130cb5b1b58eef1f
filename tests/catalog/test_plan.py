"""Keys: equal for equal numbers, different for everything that changes a number, blind to names, paths and display."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.catalog.conftest import write_model, write_sae
from wbtui.catalog.models import find_model
from wbtui.catalog.plan import TokensPlan, plan_tokens
from wbtui.catalog.saes import find_sae
from wbtui.definitions import DEFINITIONS, MaskDefinition, TokensDefinition
from wbtui.errors import WeightsError
from wbtui.store.keys import ProductSpec


def plan(model: Path, sae: Path, cache: Path, definition: TokensDefinition = DEFINITIONS["folded"]) -> TokensPlan:
    info = find_model(str(model))
    return plan_tokens(info, find_sae(info, str(sae)), definition, cache)


@pytest.fixture
def sae_folder(tmp_path: Path) -> Path:
    return write_sae(tmp_path / "sae")


def test_a_tokenizer_of_another_model_is_refused_before_anything_is_hashed(
    model_folder: Path, sae_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN a tokenizer with more ordinary tokens than the model has rows
    THEN the plan is refused, with both sizes, before the model's bytes are read; extra control tokens are no reason."""
    path = model_folder / "tokenizer.json"
    d_vocab = find_model(str(model_folder)).d_vocab
    data: dict[str, Any] = {"model": {"type": "BPE", "vocab": {f"t{i}": i for i in range(d_vocab)}}}
    special = {"id": d_vocab + 5, "content": "<more>", "special": True}
    path.write_text(json.dumps(data | {"added_tokens": [special]}))
    plan(model_folder, sae_folder, tmp_path / "cache")
    data["model"]["vocab"] |= {f"foreign{i}": d_vocab + i for i in range(7)}
    path.write_text(json.dumps(data))

    def hashed(*_: object) -> str:
        raise AssertionError("hashed")

    monkeypatch.setattr("wbtui.catalog.plan.model_fingerprint", hashed)
    expected = rf"vocabulary of {d_vocab + 7:,}, of which 7 tokens .* ids below {d_vocab:,}, .* of another model"
    with pytest.raises(WeightsError, match=expected):
        plan(model_folder, sae_folder, tmp_path / "other")


def test_moved_copies_keep_their_keys(model_folder: Path, sae_folder: Path, tmp_path: Path) -> None:
    first = plan(model_folder, sae_folder, tmp_path / "cache")
    shutil.copytree(model_folder, tmp_path / "copy" / "tiny")
    shutil.copytree(sae_folder, tmp_path / "copy" / "sae")
    second = plan(tmp_path / "copy" / "tiny", tmp_path / "copy" / "sae", tmp_path / "cache")
    assert [s.key for s in first.all()] == [s.key for s in second.all()]


@pytest.mark.parametrize(
    "definition",
    [
        dataclasses.replace(DEFINITIONS["folded"], kappa=1.0),
        dataclasses.replace(DEFINITIONS["folded"], k_show=10),
        dataclasses.replace(DEFINITIONS["folded"], mask=MaskDefinition(cut=0.6)),
        DEFINITIONS["neuronpedia"],
        DEFINITIONS["neuronpedia-folded"],
    ],
)
def test_definition_is_in_the_key(
    model_folder: Path, sae_folder: Path, tmp_path: Path, definition: TokensDefinition
) -> None:
    base = plan(model_folder, sae_folder, tmp_path)
    other = plan(model_folder, sae_folder, tmp_path, definition)
    assert base.tokens.key != other.tokens.key
    assert {s.key for s in base.nulls}.isdisjoint(s.key for s in other.nulls)


def test_name_of_a_definition_is_not(model_folder: Path, sae_folder: Path, tmp_path: Path) -> None:
    renamed = dataclasses.replace(DEFINITIONS["folded"], name="mine")
    assert (
        plan(model_folder, sae_folder, tmp_path).tokens.key
        == plan(model_folder, sae_folder, tmp_path, renamed).tokens.key
    )


@pytest.mark.parametrize("which", ["model", "norm", "sae", "tokenizer"])
def test_bytes_are_in_the_key(model_folder: Path, sae_folder: Path, tmp_path: Path, which: str) -> None:
    before = plan(model_folder, sae_folder, tmp_path)
    path = sae_folder / "sae_weights.safetensors" if which == "sae" else model_folder / "model.safetensors"
    if which == "tokenizer":
        (model_folder / "tokenizer.json").write_text('{"x": 1}')
    else:
        name = {"model": "model.embed_tokens.weight", "norm": "model.norm.weight", "sae": "W_enc"}[which]
        tensors = {k: np.array(v) for k, v in load_file(path).items()}
        tensors[name].flat[3] += 1
        save_file(tensors, path)
    after = plan(model_folder, sae_folder, tmp_path)
    assert before.tokens.key != after.tokens.key
    same_mask = before.masks["writes"].key == after.masks["writes"].key
    assert same_mask == (which != "model")


def test_conventions_are_in_the_key(model_folder: Path, tmp_path: Path) -> None:
    a = plan(model_folder, write_sae(tmp_path / "a"), tmp_path)
    b = plan(model_folder, write_sae(tmp_path / "b", apply_b_dec_to_input=False), tmp_path)
    assert a.tokens.key != b.tokens.key


def test_order_puts_needs_first_and_doubles_none(model_folder: Path, sae_folder: Path, tmp_path: Path) -> None:
    made = plan(model_folder, sae_folder, tmp_path)
    specs = made.all()
    assert [s.analysis for s in specs] == ["vocab", "mask", "null", "null", "tokens", "null", "null", "null"]
    assert len({s.relative for s in specs}) == len(specs)
    assert made.masks["writes"] == made.masks["reads"] or made.masks["writes"].key == made.masks["reads"].key
    assert all(ProductSpec.from_json(json.loads(json.dumps(s.to_json()))) == s for s in specs)


def test_isotropic_null_is_shared_between_saes(model_folder: Path, tmp_path: Path) -> None:
    a = plan(model_folder, write_sae(tmp_path / "a", layer=0), tmp_path)
    b = plan(model_folder, write_sae(tmp_path / "b", layer=1), tmp_path)
    assert a.nulls[0].relative == b.nulls[0].relative
    assert a.nulls[1].relative != b.nulls[1].relative


def test_read_only_cache_is_no_hindrance(model_folder: Path, sae_folder: Path, tmp_path: Path) -> None:
    missing = tmp_path / "file"
    missing.write_text("")  # a file where the cache should be: nothing can be written below it
    assert (
        plan(model_folder, sae_folder, missing).tokens.key == plan(model_folder, sae_folder, tmp_path / "c").tokens.key
    )


@pytest.mark.parametrize("fault", ["weights", "tokenizer", "shape", "untied", "pickle", "index"])
def test_faults_are_named(tmp_path: Path, fault: str, make_sae: Callable[..., Path]) -> None:
    model = write_model(tmp_path / "m", **({"vocab_size": 41} if fault == "shape" else {}))
    if fault == "untied":
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    if fault in ("weights", "pickle", "index"):
        (model / "model.safetensors").unlink()
    if fault == "pickle":
        (model / "pytorch_model.bin").write_bytes(b"x")
    if fault == "index":
        (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../../etc/passwd"}}))
    if fault == "tokenizer":
        (model / "tokenizer.json").unlink()
    words = {
        "weights": "no weights",
        "tokenizer": "no tokenizer",
        "shape": r"\[40, 16\].*\[41, 16\]",
        "untied": "lm_head.weight",
        "pickle": "pickled",
        "index": "plain file name",
    }
    with pytest.raises(WeightsError, match=words[fault]):
        plan(model, make_sae("s"), tmp_path)
