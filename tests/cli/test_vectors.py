"""Vectors and steering files: what is written is what the SAE holds, under names that others read."""

from __future__ import annotations

import csv
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from tests.cli.conftest import Commands
from tests.fixtures.models import tiny_model
from tests.fixtures.saes import tiny_sae
from wbtui.catalog.models import DEMO_DIR, find_model
from wbtui.catalog.saes import find_sae
from wbtui.compute.vectors import write_vectors
from wbtui.errors import StoreError, UsageError
from wbtui.features.steering import COLUMNS, hookpoint_of, source_of

DEMO = DEMO_DIR / "saes" / "L3" / "sae_weights.safetensors"


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "np") as file:
        return dict(file.metadata())


def test_all_vectors_read_back_as_the_sae(wbtui: Commands, tmp_path: Path) -> None:
    out = tmp_path / "v.safetensors"
    ran = wbtui("export", "demo@L3", "--vectors", str(out))
    assert ran.code == 0, ran.err
    ours, theirs = load_file(out), {k: v.astype("float64") for k, v in load_file(DEMO).items()}
    lengths = np.linalg.norm(theirs["W_dec"], axis=1)
    assert ours["W_dec"] == pytest.approx(theirs["W_dec"] / lengths[:, None], abs=1e-7)
    assert ours["decoder_norm"] == pytest.approx(lengths, rel=1e-6)
    assert np.array_equal(ours["W_enc_columns"], theirs["W_enc"].T.astype("float32"))
    for name in ("b_enc", "b_dec", "threshold"):
        assert np.array_equal(ours[name], theirs[name].astype("float32"))
    assert ours["feature"].tolist() == list(range(1024))
    assert "direction" not in ours
    about = metadata(out)
    assert about["hook_name"] == "blocks.3.hook_resid_post"
    assert about["address"] == "demo@L3"
    assert json.loads(about["definition"])["name"] == "folded"
    assert len(about["sae_fingerprint"]) == 64


def test_chosen_vectors_keep_the_order_asked_for(wbtui: Commands, tmp_path: Path) -> None:
    out, table = tmp_path / "v.safetensors", tmp_path / "f.csv"
    words = ("export", "demo@L3", "--where", "semantic z_max>8", "--sort", "-z_max", "--no-daemon")
    ran = wbtui(*words, "--vectors", str(out), "-o", str(table), "--columns", "id")
    assert ran.code == 0, ran.err
    ids = [int(line) for line in table.read_text().splitlines()[1:]]
    assert load_file(out)["feature"].tolist() == ids
    assert len(ids) > 10
    assert ids != sorted(ids)
    rows = load_file(DEMO)["W_dec"].astype("float64")[ids]
    assert load_file(out)["W_dec"] == pytest.approx(rows / np.linalg.norm(rows, axis=1, keepdims=True), abs=1e-7)
    assert metadata(out)["where"] == "semantic z_max>8"
    ran = wbtui("export", "demo@L3#9999", "--vectors", str(out))
    assert (ran.code, "9999" in ran.err) == (2, True)


@pytest.mark.parametrize("site", ["hook_z", "resid_post"])
def test_directions_in_the_stream_stand_beside_a_hook_that_is_elsewhere(tmp_path: Path, site: str) -> None:
    model = tiny_model(tmp_path, "gemma2")
    folder = tiny_sae(model / "saes", model, site=site, d_sae=30, zero_rows=(4,))
    info = find_sae(find_model(str(model)), str(folder))
    request: dict[str, Any] = {"model": str(model), "sae": info.__dict__, "metadata": {"a": "b"}}
    out = tmp_path / "v.safetensors"
    assert write_vectors({**request, "rows": [29, 4, 0], "out": str(out)})["rows"] == 3
    ours = load_file(out)
    theirs = load_file(folder / "sae_weights.safetensors")
    assert ours["W_dec"] * ours["decoder_norm"][:, None] == pytest.approx(theirs["W_dec"][[29, 4, 0]], abs=1e-6)
    assert ours["W_dec"][1].tolist() == [0.0] * theirs["W_dec"].shape[1]
    assert ("direction" in ours) == (site == "hook_z")
    if site == "hook_z":
        weights = load_file(model / "model.safetensors")
        out_proj = weights[f"model.layers.{info.layer}.self_attn.o_proj.weight"].astype("float64")
        gain = 1 + weights[f"model.layers.{info.layer}.post_attention_layernorm.weight"].astype("float64")
        want = theirs["W_dec"][29].astype("float64") @ out_proj.T * gain
        assert ours["direction"][0] == pytest.approx(want / np.linalg.norm(want), abs=1e-6)
    with pytest.raises(StoreError):
        write_vectors({**request, "rows": None, "out": str(tmp_path / "no" / "v.safetensors")})
    assert not (tmp_path / "no").exists()


def read(path: Path) -> list[dict[str, str]]:
    """By the columns that lm-evaluation-harness documents."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_steering_file_has_the_harness_columns(wbtui: Commands, tmp_path: Path) -> None:
    out = tmp_path / "steer.csv"
    words = ("export", "demo@L3#77", "--format", "lm-eval", "-o", str(out), "--no-daemon", "-q")
    ran = wbtui(*words)
    assert ran.code == 2, "a local folder cannot be loaded by name"
    assert "--release" in ran.err
    named = ("--release", "me/saes", "--sae-id", "L3")
    assert wbtui(*words, *named, "--coefficient", "-2.5", "--action", "clamp").code == 0
    assert out.read_text().splitlines()[0] == ",".join(COLUMNS)
    row = read(out)[0]
    about = row.pop("description")
    assert row == {
        "loader": "sae_lens", "action": "clamp", "sparse_model": "me/saes", "hookpoint": "layers.3",
        "feature_index": "77", "steering_coefficient": "-2.5", "head_index": "", "sae_id": "L3",
    }  # fmt: skip
    assert about
    many = ("export", "demo@L3", "--where", "id:3,5", "--format", "lm-eval", "--no-daemon", "-q", *named)
    ran = wbtui(*many, "-o", str(out))
    assert (ran.code, "last row" in ran.err) == (2, True)
    assert wbtui(*many, "-o", str(tmp_path / "dir")).code == 0
    assert sorted(p.name for p in (tmp_path / "dir").iterdir()) == ["L3-3.csv", "L3-5.csv"]


def test_an_add_file_that_the_harness_refuses_is_warned_of_and_the_vector_itself_works(
    wbtui: Commands, tmp_path: Path
) -> None:
    import torch

    words = ("export", "demo@L3#77", "--format", "lm-eval", "--no-daemon", "-q", "--coefficient", "-2.5")
    named = ("--release", "me/saes", "--sae-id", "L3")
    ran = wbtui(*words, *named, "-o", str(tmp_path / "a.csv"))
    assert ran.code == 0 and "refuses `add`" in ran.err and "FILE.pt" in ran.err
    assert "refuses" not in wbtui(*words, *named, "--action", "clamp", "-o", str(tmp_path / "c.csv")).err
    theirs = load_file(DEMO)
    for action, bias in (("add", None), ("clamp", theirs["b_dec"])):
        out = tmp_path / f"{action}.pt"
        ran = wbtui(*words, "--action", action, "-o", str(out))
        assert ran.code == 0 and "refuses" not in ran.err, ran.err
        found = torch.load(out, weights_only=True)
        assert list(found) == ["layers.3"]
        entry = found["layers.3"]
        assert np.array_equal(entry.pop("steering_vector").numpy(), theirs["W_dec"][77].astype("float32"))
        ours = entry.pop("bias")
        assert ours is None if bias is None else np.array_equal(ours.numpy(), bias.astype("float32"))
        assert entry == {"steering_coefficient": -2.5, "action": action, "head_index": None}
    ran = wbtui(*words, "-o", str(tmp_path / "no" / "v.pt"))
    assert (ran.code, len(ran.err.splitlines())) == (1, 1) and not (tmp_path / "no").exists()
    ran = wbtui("export", "demo@L3", "--where", "id:3,5", "--format", "lm-eval", "--no-daemon", "-q", "-o", str(out))
    assert ran.code == 2 and "last row" in ran.err


@pytest.mark.skipif(not os.environ.get("WBTUI_LM_EVAL_PYTHON"), reason="names a Python with lm-evaluation-harness")
def test_the_harness_itself_steers_by_it(wbtui: Commands, tmp_path: Path) -> None:
    """Its logits move as the network's do when the vector is added behind the layer."""
    out = tmp_path / "v.pt"
    words = ("export", "demo@L3#77", "--format", "lm-eval", "--no-daemon", "-q", "--coefficient", "3")
    assert wbtui(*words, "-o", str(out)).code == 0
    done = subprocess.run(
        [os.environ["WBTUI_LM_EVAL_PYTHON"], "-c", HARNESS, str(DEMO_DIR / "model"), str(out)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    steered, expected, plain = (np.array(x) for x in json.loads(done.stdout.splitlines()[-1]))
    assert np.abs(steered - expected).max() < 1e-4 < 0.1 < np.abs(steered - plain).max()


HARNESS = """
import json, sys
import torch
from lm_eval.models.hf_steered import SteeredModel
from transformers import AutoModelForCausalLM

model, path = sys.argv[1:]
harness = SteeredModel(pretrained=model, steer_path=path, device="cpu", dtype="float32")
plain = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
ids = torch.tensor([[5, 6, 7, 9]])
entry = torch.load(path, weights_only=True)["layers.3"]
with torch.no_grad():
    steered, before = harness._model_call(ids), plain(ids).logits
    move = entry["steering_vector"] * entry["steering_coefficient"]
    plain.base_model.layers[3].register_forward_hook(
        lambda m, i, o: (o[0] + move, *o[1:]) if isinstance(o, tuple) else o + move)
    expected = plain(ids).logits
print(json.dumps([x[0, -1, :64].tolist() for x in (steered, expected, before)]))
"""


@pytest.mark.parametrize(
    ("kind", "site", "layer"),
    [("gpt2", "resid_post", 1), ("gemma2", "mlp_out", 1), ("gemma2", "attn_out", 2), ("llama", "attn_out", 0),
     ("gpt_neox", "resid_pre", 2), ("llama", "mlp_out", 1)],
)  # fmt: skip
def test_hookpoints_are_modules_that_put_the_hook_out(tmp_path: Path, kind: str, site: str, layer: int) -> None:
    """The harness looks the name up in ``model.base_model.named_modules()``."""
    import torch
    from transformers import AutoModelForCausalLM

    folder = tiny_model(tmp_path, kind)
    model = find_model(str(folder))
    info = find_sae(model, str(tiny_sae(folder / "saes", folder, site=site, layer=layer)))
    network = AutoModelForCausalLM.from_pretrained(folder)
    modules = dict(network.base_model.named_modules())
    module = modules[hookpoint_of(model, info)]
    seen: list[Any] = []
    module.register_forward_hook(lambda m, i, o: seen.append(o[0] if isinstance(o, tuple) else o))
    with torch.no_grad():
        out = network(torch.tensor([[5, 6, 7]]), output_hidden_states=True)
    if site in ("resid_post", "resid_pre"):
        assert torch.equal(seen[0], out.hidden_states[layer if site == "resid_pre" else layer + 1])
    assert seen[0].shape == (1, 3, network.config.hidden_size)


def test_hooks_that_no_module_puts_out_are_refused(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path, "llama")
    model = find_model(str(folder))
    for site, layer in (("resid_pre", 0), ("resid_mid", 1), ("hook_z", 1)):
        info = find_sae(model, str(tiny_sae(folder / "saes", folder, site=site, layer=layer)))
        with pytest.raises(UsageError, match="no module"):
            hookpoint_of(model, info)


def test_where_sae_lens_finds_an_sae() -> None:
    from dataclasses import replace

    demo = find_sae(find_model("demo"), "L3")
    hub = replace(demo, name="x", path="/c/models--google--gemma-scope/snapshots/0a1b/layer_3/width_16k")
    assert source_of(hub) == ("google/gemma-scope", "layer_3/width_16k")
    registry = replace(demo, name="gpt2-small-res-jb/blocks.3.hook_resid_pre")
    assert source_of(registry) == ("gpt2-small-res-jb", "blocks.3.hook_resid_pre")
