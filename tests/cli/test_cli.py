"""The command line on a finished demo product: output, exit codes, errors in one line."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.catalog.conftest import write_model, write_sae
from tests.cli.conftest import Commands
from wbtui.catalog.models import find_model
from wbtui.catalog.plan import plan_tokens
from wbtui.catalog.saes import find_sae
from wbtui.definitions import DEFINITIONS
from wbtui.features.first_look import NOTE
from wbtui.features.table import FeatureTable


def test_models_and_saes(wbtui: Commands) -> None:
    assert json.loads(wbtui("models", "--json").out)[0]["name"] == "demo"
    saes = {s["name"]: s for s in json.loads(wbtui("saes", "demo", "--json").out)}
    assert saes["L3"]["tokens"] == "complete"
    assert saes["L0"]["tokens"] == "absent"
    assert saes["L5"]["reader_layer"] is None
    assert "L3-control" in wbtui("saes", "demo").out


def test_show_prints_the_record_with_its_definition(wbtui: Commands) -> None:
    ran = wbtui("show", "demo@L3#120", "--json")
    assert (ran.code, ran.err) == (0, "")
    record = json.loads(ran.out)
    assert record["schema"] == "wbtui.feature/1"
    assert record["address"] == "demo@L3#120"
    assert record["definition"]["kappa"] == 2.0
    assert len(record["writes"]["top_pos"]) == 25
    text = wbtui("show", "demo@L3#120").out
    assert "WRITES" in text
    assert "reconstruction of arXiv 2601.22447" in text
    assert wbtui("show", "demo", "L3#120", "--json").out == ran.out


def test_shown_numbers_are_the_matrix_products(wbtui: Commands) -> None:
    """What a researcher checks by hand: unit decoder row, times 1 + w, times the embedding of the token."""
    from safetensors import safe_open
    from safetensors.numpy import load_file

    demo = Path(find_model("demo").path)
    with safe_open(demo / "model.safetensors", "pt") as file:
        w_e = file.get_tensor("model.embed_tokens.weight").double().numpy()
        gain = 1 + file.get_tensor("model.norm.weight").double().numpy()
    row = load_file(demo.parent / "saes" / "L3" / "sae_weights.safetensors")["W_dec"][120].astype("float64")
    logits = w_e @ (row / np.linalg.norm(row) * gain)
    record = json.loads(wbtui("show", "demo@L3#120", "--json").out)
    for item in record["writes"]["top_pos"] + record["writes"]["top_neg"]:
        assert item["value"] == pytest.approx(logits[item["id"]], abs=1e-5)
    shown = record["writes"]["top_pos"]
    better = np.flatnonzero(logits > shown[0]["value"] + 1e-6)
    assert len(better) == record["writes"]["metrics"]["n_masked_above"] or len(better) <= 20


def test_summary_of_an_sae_keeps_noise_below_two_percent(wbtui: Commands) -> None:
    summary = json.loads(wbtui("show", "demo@L3", "--json").out)
    writes = summary["sides"]["writes"]
    fresh = [n for n in writes["noise"] if n["role"] == "check" and n["kind"] != "sign_flip"]
    assert len(fresh) == 2
    assert all(n["readings"]["semantic"]["share"] <= 0.02 for n in fresh)
    assert writes["features"]["readings"]["semantic"]["share"] > 0.1
    assert "semantic" in wbtui("show", "demo@L3").out


def test_export_csv_reads_back(wbtui: Commands, tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    ran = wbtui("export", "demo", "L3", "--where", "semantic", "-o", str(path))
    assert ran.code == 0
    assert ran.out == ""
    import pandas

    frame = pandas.read_csv(path)
    model = find_model("demo")
    cache = Path(__import__("os").environ["WBTUI_CACHE_DIR"])
    table = FeatureTable.open(cache, plan_tokens(model, find_sae(model, "L3"), DEFINITIONS["folded"], cache))
    assert frame["id"].tolist() == np.flatnonzero(table.column("semantic")).tolist()
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows[:50]:
        tokens = json.loads(row["writes.top_pos"])
        ids = json.loads(row["writes.top_pos_ids"])
        assert len(tokens) == len(ids) == 25
        assert [table.vocab.shown(i) for i in ids] == tokens
    meta = json.loads((tmp_path / "f.csv.meta.json").read_text())
    assert meta["model"]["name"] == "demo"
    assert meta["where"] == "semantic"


def test_export_to_stdout_is_data_only(wbtui: Commands) -> None:
    ran = wbtui("export", "demo@L3", "--columns", "id,z_max", "--sort=-z_max", "--format", "csv")
    rows = list(csv.reader(io.StringIO(ran.out)))
    assert rows[0] == ["id", "writes.z_max"]
    values = [float(r[1]) for r in rows[1:]]
    assert len(values) == 1024
    assert values == sorted(values, reverse=True)
    one = wbtui("export", "demo@L3#5", "--columns", "id", "--format", "jsonl")
    assert json.loads(one.out)["id"] == 5


def test_cache_commands(wbtui: Commands, demo_cache: Path) -> None:
    assert wbtui("cache", "path").out.strip() == str(demo_cache)
    assert wbtui("cache", "verify").out.strip() == "clean"
    entries = json.loads(wbtui("cache", "ls", "--json").out)
    assert sorted(e["analysis"] for e in entries) == ["mask", "null", "null", "null", "null", "null", "tokens", "vocab"]
    assert all(e["state"] == "complete" for e in entries)
    assert json.loads(wbtui("cache", "du", "--json").out)["total"] > 0
    assert wbtui("cache", "gc", "--dry-run").code == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("show", "demo@L3#99999"), 2, "from 0 to 1023"),
        (("show", "demo@L9"), 2, "from 0 to 5"),
        (("show", "demo@Lx"), 2, "wbtui saes demo"),
        (("show", "demo@"), 2, "no SAE after @"),
        (("show", "nothing@L3"), 2, "nothing"),
        (("show", "a", "b", "c"), 2, "3 words"),
        (("saes", "nothing"), 2, "wbtui models"),
        (("export", "demo"), 2, "no SAE"),
        (("export", "demo", "L3", "--where", "z_mx>3"), 2, "z_max"),
        (("export", "demo", "L3", "--where", "z_max>"), 2, "nothing to compare"),
        (("export", "demo", "L3", "--columns", "nope"), 2, "nope"),
        (("export", "demo", "L3", "--format", "parquet"), 2, "-o FILE.parquet"),
        (("show", "demo@L0", "--no-compute"), 2, "wbtui compute demo L0"),
        (("compute", "demo", "L3", "--definition", "mine"), 2, "neuronpedia"),
        (("cache", "gc", "--max-size", "lots"), 2, "20G"),
        (("daemon", "status"), 3, "no service"),
        (("nothing@L3",), 2, "no terminal"),
        (("screenshot", "demo@L3", "--size", "big", "-o", "x.svg"), 2, "120x40"),
        (("show",), 2, "Missing argument"),
        (("show", "--nope"), 2, "No such option"),
    ],
)
def test_what_a_user_mistypes(wbtui: Commands, words: tuple[str, ...], code: int, said: str) -> None:
    ran = wbtui(*words)
    assert ran.code == code
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert ran.out == ""


def test_unknown_architecture_and_damaged_weights_are_work_errors(wbtui: Commands, tmp_path: Path) -> None:
    strange = write_model(tmp_path / "strange", model_type="mamba")
    ran = wbtui("saes", str(strange))
    assert (ran.code, "mamba" in ran.err) == (1, True)
    model = write_model(tmp_path / "tiny")
    sae = write_sae(tmp_path / "sae", d_in=17)
    ran = wbtui("show", f"{model}@{sae}")
    assert (ran.code, "d_in 17" in ran.err) == (1, True)
    good = write_sae(tmp_path / "good")
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    ran = wbtui("show", f"{model}@{good}")
    assert ran.code == 1
    assert "model.safetensors" in ran.err
    assert len(ran.err.strip().splitlines()) == 1


def test_help_is_complete() -> None:
    from wbtui.cli import _register, cli

    _register()

    def walk(command: object, path: list[str]) -> None:
        import click

        assert isinstance(command, click.Command)
        if not command.hidden:
            assert command.help, path
            for parameter in command.params:
                if isinstance(parameter, click.Option) and parameter.name not in ("as_json", "help", "version"):
                    assert parameter.help, (path, parameter.name)
        if isinstance(command, click.Group):
            for name, child in command.commands.items():
                walk(child, [*path, name])

    walk(cli, ["wbtui"])


def test_command_line_starts_light() -> None:
    code = (
        "import sys; from wbtui.cli import main; main(['--help']); "
        "sys.exit(bool({'torch', 'transformers', 'sae_lens', 'scipy', 'textual', 'numpy'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "MODEL[@SAE[#FEATURE]]" in ran.stdout


def test_a_record_and_an_export_wait_for_no_check_and_a_summary_does(
    wbtui: Commands, demo_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_tokens(find_model("demo"), find_sae(find_model("demo"), "L3"), DEFINITIONS["folded"], demo_cache)
    for spec in plan.all(checks=False):
        (tmp_path / spec.relative).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / spec.relative).symlink_to(demo_cache / spec.relative)
    monkeypatch.setattr("wbtui.store.places.safe_product_path", lambda cache, relative: Path(cache, relative))
    monkeypatch.setenv("WBTUI_CACHE_DIR", str(tmp_path))
    asked: list[bool] = []
    monkeypatch.setattr("wbtui.cli.compute.run", lambda plan, cache, *, checks, **work: asked.append(checks))
    assert wbtui("show", "demo@L3#120", "--no-compute").code == 0
    assert wbtui("export", "demo", "L3", "--columns", "writes.z_max").out.count("\n") > 1000
    assert asked == []
    assert wbtui("show", "demo@L3", "--no-compute").code == 2
    wbtui("show", "demo@L3")
    assert asked == [True]


def test_a_command_imports_its_own_module_alone() -> None:
    from wbtui.cli import COMMANDS, _register, cli

    _register()
    assert set(cli.commands) == set(COMMANDS), "every command is in the table of modules"
    code = (
        "import sys; from wbtui.cli import main; code = main(['models', '--help']); "
        "loaded = {m for m in sys.modules if m.startswith('wbtui.cli.')}; "
        "sys.exit(code or not loaded <= {'wbtui.cli.listing', 'wbtui.cli.common', 'wbtui.cli.options'})"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "wbtui models" in ran.stdout


def test_show_now_is_a_first_look(wbtui: Commands) -> None:
    ran = wbtui("show", "demo@L3#67", "--now", "--no-daemon")
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert lines[0] == "demo@L3#67" and lines[1].startswith("  writes  ") and "color" in lines[1]
    assert lines[-1].strip() == NOTE
    found = json.loads(wbtui("show", "demo@L3#67", "--now", "--no-daemon", "--json").out)
    assert (
        found["schema"] == "wbtui.first_look/1" and found["texts"][str(found["writes.top_ids"][0])].strip() == "color"
    )
    ran = wbtui("show", "demo@L3", "--now", "--no-daemon")
    assert ran.code == 2 and "MODEL@SAE#FEATURE" in ran.err
