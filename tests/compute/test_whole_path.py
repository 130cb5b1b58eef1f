"""From checkpoint files to stored columns, on a tiny random model of every architecture.

The reference takes its matrices from the transformers model itself (its embeddings, its own final norm applied to basis
vectors), multiplies them densely in float64 with the plain formulas of ``tests/analysis/reference.py``, and shares no
code with sources, analysis or store.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.analysis import reference
from tests.analysis.helpers import assert_columns
from tests.fixtures.models import FAMILIES, PLAIN_TYPES, tiny_model
from tests.fixtures.saes import tiny_sae
from wbtui import schema
from wbtui.catalog.models import find_model
from wbtui.catalog.plan import TokensPlan, plan_tokens
from wbtui.catalog.saes import find_sae
from wbtui.compute import lone as without_torch
from wbtui.compute.work import ShardTask, compute_row, compute_shard
from wbtui.definitions import DEFINITIONS, MaskDefinition, TokensDefinition, to_json
from wbtui.errors import UsageError, WeightsError
from wbtui.features.vocabulary import Vocabulary
from wbtui.service.planning import first_look
from wbtui.service.wishes import RowRequest
from wbtui.store.keys import ProductSpec
from wbtui.store.products import Product

LOOSE_MASK = MaskDefinition(cut=0.45, count=4)
"""Random rows have few near neighbours; this cut masks some tokens of a tiny random model and not all."""


def make_plan(model: Path, sae: Path, cache: Path, definition: TokensDefinition) -> TokensPlan:
    info = find_model(str(model))
    return plan_tokens(info, find_sae(info, str(sae)), definition, cache)


def fill(cache: Path, specs: list[ProductSpec]) -> None:
    for spec in specs:
        product = Product(cache, spec)
        product.begin()
        if not spec.rows:
            compute_shard(ShardTask(str(cache), spec.to_json()))
            continue
        for start, stop in product.missing():
            compute_shard(ShardTask(str(cache), spec.to_json(), start, stop))
        compute_shard(ShardTask(str(cache), spec.to_json(), kind="assemble"))


def lone_rows(cache: Path, plan: TokensPlan, features: list[int]) -> dict[str, np.ndarray]:
    """Rows as a lone feature gets them, made with numpy alone."""
    rows = [without_torch.row_columns(cache, plan.tokens, feature) for feature in features]
    assert all(rows), "this model's rows are made without torch"
    parts = [row[0] for row in rows if row is not None]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def columns_of(cache: Path, spec: ProductSpec) -> dict[str, np.ndarray]:
    found = Product(cache, spec).columns()
    return {name: np.array(found[name]) for name in found.names}


class Truth:
    """Matrices of a saved model, read by transformers in float32 and used in float64."""

    def __init__(self, folder: Path) -> None:
        import transformers

        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.w_e = model.get_input_embeddings().weight.detach().double().numpy()
        self.w_u = model.get_output_embeddings().weight.detach().double().numpy()
        base = model.base_model
        names = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "language_model.norm")
        norm = next(m for n, m in base.named_modules() if n in names)
        width = self.w_e.shape[1]
        self.centre = isinstance(norm, torch.nn.LayerNorm)
        if self.centre:
            self.gain = norm.weight.detach().double().numpy()
        else:
            # the norm of a vector of ones is its gain, up to epsilon: this sees `1 + w` without knowing of it
            seen = copy.deepcopy(norm).double()(torch.ones(1, width, dtype=torch.float64)).detach().numpy()[0]
            self.gain = np.round(seen * 64) / 64
            np.testing.assert_allclose(self.gain, seen, rtol=1e-4)
        with torch.no_grad():
            ids = torch.arange(4)[None]
            states = model(ids, output_hidden_states=True).hidden_states[0][0].double().numpy()
        position = getattr(base, "wpe", None)
        if position is not None:
            states = states - position.weight.detach().double().numpy()[:4]
        self.scale = float((states * self.w_e[:4]).sum() / (self.w_e[:4] ** 2).sum())


def sae_truth(folder: Path, centre: bool) -> tuple[np.ndarray, np.ndarray]:
    from safetensors.numpy import load_file

    weights = load_file(folder / "sae_weights.safetensors")
    encoder = weights["W_enc"].T.astype("float64")
    if centre:
        encoder = encoder - encoder.mean(1, keepdims=True)
    return weights["W_dec"].astype("float64"), encoder


def writes_truth(
    decoder: np.ndarray,
    truth: Truth,
    gain: np.ndarray,
    keep: np.ndarray,
    vocab: dict[str, Any],
    definition: TokensDefinition,
) -> dict[str, np.ndarray]:
    """The reference's writes side. Scores are ranked before the division by the decoder's norm, whose rounding would
    break true ties; ranks, z and entropies do not see the division."""
    directions = decoder
    if definition.unembed == "folded":
        if truth.centre:
            directions = directions - directions.mean(1, keepdims=True)
        directions = directions * gain
    out = reference.side(directions, truth.w_u, keep, vocab, definition)
    norms = np.linalg.norm(decoder, axis=1)
    for name in ("top_values", "bottom_values", "mean", "std", "masked_best_value"):
        out[name] = out[name] / norms.reshape((-1,) + (1,) * (out[name].ndim - 1))
    return out


def neighbours(rows: np.ndarray, cut: float) -> np.ndarray:
    centred = rows - rows.mean(0)
    unit = centred / np.maximum(np.sqrt((centred**2).sum(1, keepdims=True)), 1e-30)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -1)
    return (cosines > cut).sum(1)


def vocab_truth(cache: Path, plan: TokensPlan) -> tuple[dict[str, Any], np.ndarray]:
    columns = columns_of(cache, plan.vocab)
    vocabulary = Vocabulary(Product(cache, plan.vocab).columns())
    flags = columns["flags"]
    vocab = {
        "word": columns["word"],
        "whole_word": (flags & schema.VOCAB_WHOLE_WORD) != 0,
        "norms": [vocabulary.norm(i) for i in range(vocabulary.n)],
    }
    return vocab, (flags & (schema.VOCAB_SPECIAL | schema.VOCAB_PADDED)) != 0


@pytest.mark.parametrize(
    ("name", "model_type"), [("masked", t) for t in FAMILIES] + [("neuronpedia", t) for t in PLAIN_TYPES]
)
def test_every_number_of_the_record(tmp_path: Path, model_type: str, name: str) -> None:

    definition = DEFINITIONS["neuronpedia"]
    if name == "masked":
        definition = dataclasses.replace(DEFINITIONS["folded"], mask=LOOSE_MASK)
    model = tiny_model(tmp_path, model_type, quantized=True)
    sae = tiny_sae(tmp_path, model, d_sae=40, quantized=True)
    plan = make_plan(model, sae, tmp_path / "cache", definition)
    fill(tmp_path / "cache", [plan.vocab, *plan.masks.values(), plan.tokens])

    truth = Truth(model)
    decoder, encoder = sae_truth(sae, truth.centre)
    vocab, gone = vocab_truth(tmp_path / "cache", plan)
    keep = {side: np.ones(len(gone), bool) for side in schema.SIDES}
    if definition.mask is not None:
        for side, matrix in (("writes", truth.w_u), ("reads", truth.w_e)):
            counts = neighbours(matrix, definition.mask.cut)
            np.testing.assert_array_equal(columns_of(tmp_path / "cache", plan.masks[side])["neighbours"], counts)
            keep[side] = ~gone & (counts < definition.mask.count)
        assert 20 < keep["writes"].sum() < len(gone) - 12, "the mask of this test masks some tokens, not all"

    found = columns_of(tmp_path / "cache", plan.tokens)
    wanted = writes_truth(decoder, truth, truth.gain, keep["writes"], vocab, definition)
    for side in ("writes", "against"):
        names = [c.name for c in schema.side_columns(side)]
        expected = {n: wanted[n if side == "writes" else f"against.{n}"] for n in names} | {"std": wanted["std"]}
        assert_columns({n: found[f"{side}.{n}"] for n in names}, expected, int(keep["writes"].sum()))
    reading = {"scale": truth.scale, "centre_values": definition.center_tokens, "flatten": truth.centre}
    wanted_reads = reference.side(encoder, truth.w_e, keep["reads"], vocab, definition, **reading)
    names = [c.name for c in schema.side_columns("reads")]
    assert_columns({n: found[f"reads.{n}"] for n in names}, wanted_reads, int(keep["reads"].sum()))

    np.testing.assert_allclose(found["d_norm"], np.linalg.norm(decoder, axis=1), rtol=1e-5)
    np.testing.assert_allclose(found["e_norm"], np.linalg.norm(encoder, axis=1), rtol=1e-5)
    p_decoder = decoder - decoder.mean(1, keepdims=True) if truth.centre else decoder
    cosines = (p_decoder * encoder).sum(1) / np.linalg.norm(p_decoder, axis=1) / np.linalg.norm(encoder, axis=1)
    np.testing.assert_allclose(found["selfcos"], cosines, atol=1e-5)
    shared = [len(set(a[:10]) & set(b[:10])) for a, b in zip(wanted["top_ids"], wanted_reads["top_ids"], strict=True)]
    np.testing.assert_array_equal(found["overlap"], shared)
    assert not found["flags"].any()
    some = [0, 7, 39]
    lone = lone_rows(tmp_path / "cache", plan, some)
    for side, expected in (("writes", wanted), ("reads", wanted_reads)):
        mine = {n.removeprefix(f"{side}."): v for n, v in lone.items() if n.startswith(f"{side}.")}
        assert_columns(mine, {n: v[some] for n, v in expected.items()}, int(keep[side].sum()))
    for column in ("d_norm", "e_norm", "selfcos", "overlap", "flags"):
        np.testing.assert_allclose(lone[column], found[column][some], atol=1e-5, err_msg=column)


@pytest.mark.parametrize("model_type", ["gemma", "gemma2"])
def test_w_in_place_of_one_plus_w_is_caught(tmp_path: Path, model_type: str) -> None:
    """The negative control: the same comparison must fail with the gain that public tools got wrong."""
    model = tiny_model(tmp_path, model_type, quantized=True)
    sae = tiny_sae(tmp_path, model, d_sae=16, quantized=True)
    plan = make_plan(model, sae, tmp_path / "cache", DEFINITIONS["neuronpedia-folded"])
    fill(tmp_path / "cache", [plan.vocab, plan.tokens])
    truth = Truth(model)
    vocab, gone = vocab_truth(tmp_path / "cache", plan)
    found = columns_of(tmp_path / "cache", plan.tokens)
    names = [c.name for c in schema.side_columns("writes")]
    ours = {n: found[f"writes.{n}"] for n in names}
    decoder, _ = sae_truth(sae, truth.centre)

    def expected(gain: np.ndarray) -> dict[str, np.ndarray]:
        return writes_truth(decoder, truth, gain, np.ones(len(gone), bool), vocab, plan.definition)

    assert_columns(ours, expected(truth.gain), len(gone))
    with pytest.raises(AssertionError):
        assert_columns(ours, expected(truth.gain - 1.0), len(gone))


def test_a_lone_row_is_its_shards_row(tmp_path: Path) -> None:
    model = tiny_model(tmp_path, "gemma2", quantized=True)
    sae = tiny_sae(tmp_path, model, d_sae=40, quantized=True)
    cache = tmp_path / "cache"
    plan = make_plan(model, sae, cache, DEFINITIONS["folded"])
    fill(cache, [plan.vocab])
    request = {"cache": str(cache), "spec": plan.tokens.to_json()}
    assert compute_row(request, 7)["unmasked"] is True
    fill(cache, [*plan.masks.values(), plan.tokens])
    lone = compute_row(request, 7)
    assert lone.pop("unmasked") is False
    stored = columns_of(cache, plan.tokens)
    assert set(lone) == set(stored)
    for name, array in stored.items():
        value = np.array([np.nan if v is None else v for v in np.atleast_1d(np.array(lone[name], dtype=object))], float)
        np.testing.assert_allclose(value, np.atleast_1d(array[7]).astype(float), rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("site", ["resid_post", "attn_out", "mlp_out", "hook_z", "mlp_post"])
def test_which_lone_rows_are_made_without_torch(tmp_path: Path, site: str, dtype: str) -> None:
    """GIVEN a process in which torch cannot be imported
    THEN a lone row is there all the same and equals its shard's, but for sites that go through W_O or W_out."""
    model = tiny_model(tmp_path, "gemma2", dtype=dtype)
    sae = tiny_sae(tmp_path, model, d_sae=16, site=site)
    cache = tmp_path / "cache"
    plan = make_plan(model, sae, cache, dataclasses.replace(DEFINITIONS["folded"], mask=LOOSE_MASK))
    fill(cache, [plan.vocab, *plan.masks.values(), plan.tokens])
    request = {"cache": str(cache), "spec": plan.tokens.to_json()}
    mapped = site in ("hook_z", "mlp_post")
    if dtype == "float32":
        code = (
            "import json, sys; sys.modules['torch'] = None; from wbtui.compute.work import compute_row;"
            "request = json.load(sys.stdin); print(json.dumps(compute_row(request, 7)))"
        )
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, check=False)
        assert (done.returncode != 0) == mapped, done.stderr
        row = compute_row(request, 7) if mapped else json.loads(done.stdout)
    else:
        assert (without_torch.row_columns(cache, plan.tokens, 7) is None) == mapped
        row = compute_row(request, 7)
    assert row.pop("unmasked") is False
    for name, array in columns_of(cache, plan.tokens).items():
        value = np.array([np.nan if v is None else v for v in np.atleast_1d(np.array(row[name], dtype=object))], float)
        np.testing.assert_allclose(value, np.atleast_1d(array[7]).astype(float), rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("site", ["resid_post", "hook_z"])
def test_a_first_look_is_the_row_without_the_weights_being_read(
    tmp_path: Path, site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN a model that nothing has been made of THEN a first look has the numbers of the lone row and its words, and
    neither hashes weights nor keeps anything; where torch must make the row, it does both after all."""
    model = tiny_model(tmp_path, "gemma2", dtype="bfloat16")
    sae = tiny_sae(tmp_path, model, d_sae=16, site=site)
    cache, other = tmp_path / "cache", tmp_path / "other"
    asked = RowRequest(str(model), str(sae), to_json(DEFINITIONS["folded"]), str(cache), 7, first=True)
    hashed = "wbtui.store.fingerprints._file_tensors"
    with monkeypatch.context() as patch:
        if site == "resid_post":
            patch.setattr(hashed, lambda *_: pytest.fail("weights were hashed"))
            patch.setattr("wbtui.compute.shard.row_columns", lambda *_: pytest.fail("torch was asked"))
        device = "cuda:0" if site == "resid_post" else "cpu"  # there need be none
        found = compute_row(first_look(asked).task["request"], 7, device)
    assert cache.exists() == (site == "hook_z")
    texts = found.pop("texts")
    plan = make_plan(model, sae, other, DEFINITIONS["folded"])
    fill(other, [plan.vocab])
    assert found == compute_row({"cache": str(other), "spec": plan.tokens.to_json()}, 7)
    vocabulary = Vocabulary(Product(other, plan.vocab).columns())
    named = {i for name, ids in found.items() if name.endswith("_ids") for i in ids if i is not None and i >= 0}
    assert named and named <= set(map(int, texts))
    assert all(vocabulary.text(int(i)) == text for i, text in texts.items())
    changed = dataclasses.replace(asked, feature=16)
    with pytest.raises(UsageError, match="feature 16; expected 0 to 15"):
        first_look(changed)


def test_bad_rows_are_marked_and_the_rest_untouched(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    model = tiny_model(tmp_path, "llama")
    sae = tiny_sae(tmp_path, model, d_sae=40)
    cache = tmp_path / "cache"
    good_plan = make_plan(model, sae, cache, DEFINITIONS["folded"])
    fill(cache, [good_plan.vocab, *good_plan.masks.values(), good_plan.tokens])
    weights = {k: np.array(v) for k, v in load_file(sae / "sae_weights.safetensors").items()}
    weights["W_dec"][3, 1] = np.nan
    weights["W_dec"][5] = 0
    weights["W_enc"][2, 8] = np.inf
    weights["W_enc"][:, 9] = 0
    save_file(weights, sae / "sae_weights.safetensors")
    plan = make_plan(model, sae, cache, DEFINITIONS["folded"])
    fill(cache, [plan.tokens])
    before, after = columns_of(cache, good_plan.tokens), columns_of(cache, plan.tokens)
    flags = after["flags"]
    assert flags[3] == schema.FLAG_BAD_DECODER
    assert flags[5] == schema.FLAG_ZERO_DECODER
    assert flags[8] == schema.FLAG_BAD_ENCODER
    assert flags[9] == schema.FLAG_ZERO_ENCODER
    assert np.flatnonzero(flags).tolist() == [3, 5, 8, 9]
    assert np.isnan(after["writes.z_max"][[3, 5]]).all()
    assert (after["writes.top_ids"][[3, 5]] == -1).all()
    assert np.isnan(after["reads.z_max"][[8, 9]]).all()
    rest = np.setdiff1d(np.arange(40), [3, 5, 8, 9])
    for name, array in before.items():
        np.testing.assert_array_equal(after[name][rest], array[rest], err_msg=name)
    assert Product(cache, plan.tokens).manifest()["n_nonfinite"] == 2


def test_a_dictionary_without_a_finite_row_is_named(tmp_path: Path) -> None:
    """No random directions can be made like it: the error says whose rows these are."""
    from safetensors.numpy import load_file, save_file

    model = tiny_model(tmp_path, "llama")
    sae = tiny_sae(tmp_path, model, d_sae=40)
    weights = {k: np.array(v) for k, v in load_file(sae / "sae_weights.safetensors").items()}
    weights["W_dec"][:] = np.inf
    save_file(weights, sae / "sae_weights.safetensors")
    cache = tmp_path / "cache"
    plan = make_plan(model, sae, cache, DEFINITIONS["neuronpedia"])
    fill(cache, [plan.vocab, plan.tokens])
    like_it = next(spec for spec in plan.nulls if spec.sae)
    with pytest.raises(WeightsError, match=f"{sae}: a dictionary without a finite"):
        fill(cache, [like_it])


def test_nulls_go_through_the_same_code_and_are_seeded(tmp_path: Path) -> None:
    model = tiny_model(tmp_path, "gpt2")
    sae = tiny_sae(tmp_path, model, d_sae=40)
    cache = tmp_path / "cache"
    plan = make_plan(model, sae, cache, DEFINITIONS["folded"])
    made = [*plan.all(checks=False), plan.checks[0]]
    fill(cache, made)
    isotropic, covariance = (columns_of(cache, spec) for spec in plan.nulls)
    fresh = columns_of(cache, plan.checks[0])
    assert len(isotropic["writes.z_max"]) == 2000
    assert not np.isnan(isotropic["writes.z_max"]).any()
    assert not np.array_equal(isotropic["writes.z_max"], fresh["writes.z_max"])
    assert not np.array_equal(isotropic["writes.z_max"], isotropic["reads.z_max"])
    assert set(isotropic) == set(schema.null_columns()) == set(covariance)
    again = tmp_path / "again"
    fill(again, [spec for spec in made if spec is not plan.nulls[0]])  # an isotropic one is among them
    for spec in made:
        if spec is plan.nulls[0]:
            continue
        one = Product(cache, spec).path / "columns.safetensors"
        two = again / spec.relative / "columns.safetensors"
        assert one.read_bytes() == two.read_bytes(), spec.analysis


@pytest.mark.parametrize("site", ["attn_out", "hook_z", "mlp_out"])
def test_encoders_off_the_stream_have_no_reads(tmp_path: Path, site: str) -> None:
    model = tiny_model(tmp_path, "gemma2")
    sae = tiny_sae(tmp_path, model, site=site, d_sae=24)
    cache = tmp_path / "cache"
    plan = make_plan(model, sae, cache, DEFINITIONS["folded"])
    fill(cache, plan.all(checks=False))
    columns = columns_of(cache, plan.tokens)
    assert (columns["flags"] == schema.FLAG_NO_READS).all()
    assert np.isnan(columns["reads.z_max"]).all()
    assert not np.isnan(columns["writes.z_max"]).any()
    assert np.isnan(columns_of(cache, plan.nulls[1])["reads.z_max"]).all()


@pytest.mark.parametrize("analysis", ["mask", "tokens"])
def test_a_token_row_that_is_not_finite_is_named(tmp_path: Path, analysis: str) -> None:
    from safetensors.torch import load_file, save_file

    model = tiny_model(tmp_path, "gemma2")
    weights = {k: v.clone() for k, v in load_file(model / "model.safetensors").items()}
    weights["model.embed_tokens.weight"][17, 3] = float("nan")
    save_file(weights, model / "model.safetensors")
    sae = tiny_sae(tmp_path, model, d_sae=24)
    definition = DEFINITIONS["folded" if analysis == "mask" else "neuronpedia"]
    plan = make_plan(model, sae, tmp_path / "cache", definition)
    with pytest.raises(WeightsError, match="not finite in 1 token rows: #17"):
        fill(tmp_path / "cache", [plan.vocab, *plan.masks.values(), plan.tokens])
