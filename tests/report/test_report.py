"""The report on the demo: numbers against scipy and the tables, pictures that hold together, files, the command."""

from __future__ import annotations

import csv
import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from scipy import stats

from tests.report import made
from wbtui.cli import main
from wbtui.errors import StoreError, UsageError
from wbtui.report.data import ModelData
from wbtui.report.svg import Drawing, Panel, Style, log_ticks, text_width, ticks, wrap
from wbtui.report.write import Report, _cell, build, write

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def report(demo: ModelData) -> Report:
    return build(demo, n_perm=40)


def _rows(report: Report, name: str, **want):
    return [r for r in report.tables[name] if all(r[k] == v for k, v in want.items())]


def test_shares_are_those_of_the_summaries(demo, report):
    for sae in demo.saes:
        want = sae.summary["sides"]["writes"]["features"]["readings"]["semantic"]
        (got,) = _rows(report, "e1_shares.csv", sae=sae.name, side="writes", reading="semantic")
        assert (got["share"], got["fdr"], got["low"]) == (want["share"], want["fdr"], want["low"])
        assert got["threshold"] == "null" and "2,000 isotropic" in got["threshold_pool"]
    (pooled,) = _rows(report, "e1_shares.csv", sae="all layers", side="reads", reading="strict")
    assert pooled["n"] == sum(int((s.table.column("reads.class") >= 0).sum()) for s in demo.saes)


def test_effects_in_heads_equal_scipy(demo, report):
    rows = _rows(report, "e3_effects.csv", label="semantic.writes", statistic="rms")
    assert len(rows) == 2 * 4  # one SAE has heads: two sides, four heads
    for r in rows[::5]:
        sae = next(s for s in demo.saes if s.name == r["sae"])
        values = np.asarray(sae.heads.columns[f"{r['side']}.rms"][r["head"]], np.float64)
        labels = sae.table.column("semantic.writes")
        a, b = values[labels], values[~labels]
        u = stats.mannwhitneyu(a, b, method="asymptotic")
        assert r["delta"] == pytest.approx(2 * u.statistic / (len(a) * len(b)) - 1)
        assert r["ks"] == pytest.approx(stats.ks_2samp(a, b, method="asymp").statistic)
        assert r["p_mann_whitney"] == u.pvalue and r["q_mann_whitney"] >= u.pvalue
        assert r["median_ratio"] == pytest.approx(np.median(a) / np.median(b))
        assert r["delta_null_low"] < 0 < r["delta_null_high"] and r["ks_null_95"] > 0
        assert r["delta_matched_on_d_norm"] is None  # unit decoders: nothing to match on
        gain = stats.mannwhitneyu(*(np.asarray(sae.heads.columns[f"{r['side']}.gain"][r["head"]], float)[m]
                                    for m in (labels, ~labels)))  # fmt: skip
        assert r["delta_gain"] == pytest.approx(2 * gain.statistic / (len(a) * len(b)) - 1)
    adjusted = stats.false_discovery_control([r["p_ks"] for r in rows])
    assert [r["q_ks"] for r in rows] == pytest.approx(adjusted.tolist())


def test_numbers_that_make_a_label_are_marked(report):
    circular = {(r["metric"], r["label"]) for r in report.tables["e3_populations.csv"] if r["metric_defines_label"]}
    assert ("writes.z_10", "semantic.writes") in circular and ("reads.z_10", "semantic.writes") not in circular
    assert not any(r["metric"] == "d_norm" for r in report.tables["e3_populations.csv"])  # it is 1 everywhere


def test_population_rows_are_the_groups(demo, report):
    (row,) = _rows(
        report, "e3_populations.csv", metric="e_norm", label="semantic.reads", sae="L3", group="semantic.reads"
    )
    table = next(s for s in demo.saes if s.name == "L3").table
    values = table.column("e_norm")[table.column("semantic.reads")].astype(np.float64)
    assert (row["n"], row["median"]) == (len(values), pytest.approx(np.median(values)))
    assert row["p90"] == pytest.approx(np.percentile(values, 90))
    names = {r["group"] for r in _rows(report, "e3_populations.csv", metric="e_norm", label="writes.class", sae="L3")}
    assert names == {"none", "single", "coherent", "diffuse"}


def test_histograms_hold_what_the_axis_shows(demo, report):
    rows = _rows(report, "figure_e3_populations.csv", label="semantic.writes", metric="key.rms")
    drawn = sum(r["semantic"] + r["other"] for r in rows)
    assert 0.995 * 1024 <= drawn <= 1024  # one SAE with heads; the axis is cut at 0.1 and 99.9 %


def test_the_last_layer_has_no_heads_and_the_page_says_so(demo, report, tmp_path):
    write(demo, report, tmp_path, {"n_perm": 40, "seed": 0})
    page = (tmp_path / "report.md").read_text()
    assert "L5: no head reads resid_post of layer 5" in page
    assert "econstruction of arXiv 2601.22447; thresholds are ours" in page
    for name in re.findall(r"\]\(([^)]+)\)", page):
        assert (tmp_path / name).is_file()
    for line in re.findall(r"^- `([^`]+)`$", page, re.M):
        assert (tmp_path / line).is_file()
    assert "nan" not in page.lower().replace("finan", "") and "None" not in page
    widths = {}
    for block in re.findall(r"(?:^\|.*\n)+", page, re.M):
        widths[block[:40]] = {line.replace("\\|", "").count("|") for line in block.splitlines()}
    assert widths and all(len(counts) == 1 for counts in widths.values())
    record = json.loads((tmp_path / "report.json").read_text())
    assert record["schema"] == "wbtui.report/1" and len(record["hypotheses"]) == len(report.hypotheses)
    assert record["saes"][0]["products"]["tokens"] and record["saes"][0]["families"]["clusters"] <= 1024
    with open(tmp_path / "e3_effects.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(report.tables["e3_effects.csv"])
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_pictures_are_grey_well_formed_and_inside_their_frame(report):
    assert set(report.figures) == {
        f"{n}.svg"
        for n in ("e1_shares", "e1_classes", "e2_heads", "e2_depth", "e3_populations", "e3_effects", "e3_variation")
    }
    for name, text in report.figures.items():
        root = ET.fromstring(text)
        width, height = float(root.get("width")), float(root.get("height"))
        assert root.find(f"{SVG}title").text
        for colour in re.findall(r'(?:fill|stroke)="(#[0-9a-f]{3,6}|rgb\([^)]*\))"', text):
            parts = re.findall(r"\d+", colour) if colour.startswith("rgb") else list(colour[1:])
            assert len(set(parts)) == 1, (name, colour)
        for element in root.iter(f"{SVG}text"):
            x, y, size = (float(element.get(k)) for k in ("x", "y", "font-size"))
            if element.get("transform"):
                continue
            length = 0.85 * text_width(element.text, size)  # an upper estimate otherwise
            left = x - {"start": 0, "middle": length / 2, "end": length}[element.get("text-anchor")]
            assert left >= -1 and left + length <= width + 1 and 0 < y <= height, (name, element.text)
        assert "thresholds" in text and "nan" not in text.replace("finan", "")


def test_reports_repeat(demo, report):
    again = build(demo, n_perm=40)
    assert again.hypotheses == report.hypotheses and again.figures == report.figures


def test_a_report_without_heads_is_whole(tmp_path):
    data = made.model(3, with_heads=False)
    found = build(data, n_perm=20)
    files = write(data, found, tmp_path / "new", {"n_perm": 20, "seed": 0})
    names = {f.name for f in files}
    assert "e2_heads.csv" not in names and {"e1_shares.svg", "e3_populations.svg", "hypotheses.csv"} <= names
    assert "No attention products" in (tmp_path / "new" / "report.md").read_text()


def test_a_report_on_many_heads_and_layers_draws(tmp_path):
    found = build(made.model(12), n_perm=20)
    for text in found.figures.values():
        ET.fromstring(text)


def test_nothing_to_report_on_is_an_error(tmp_path):
    data = made.model(1)
    data.saes.clear()
    with pytest.raises(UsageError, match="no SAE"):
        build(data)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    data = made.model(1, with_heads=False)
    with pytest.raises(StoreError):
        write(data, build(data, n_perm=20), tmp_path / "file", {"n_perm": 20, "seed": 0})


def test_cells_are_plain():
    assert [_cell(v) for v in (None, float("nan"), np.float32("inf"), True, np.bool_(False), 0.25, 3)] == [
        "", "", "", "true", "false", "0.25", 3,
    ]  # fmt: skip
    assert _cell("=1+1") == "'=1+1" and _cell("L3") == "L3"


def test_ticks():
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(-0.3, 0.3) == [-0.2, 0, 0.2]
    assert ticks(2, 2) == [2] and ticks(float("nan"), 1) == []
    assert log_ticks(0.9, 110) == [1, 2, 5, 10, 20, 50, 100]
    assert log_ticks(0.001, 1000) == [0.001, 0.01, 0.1, 1, 10, 100, 1000]
    assert log_ticks(0.55, 1.65) == [0.6, 0.8, 1.0, 1.2, 1.4, 1.6]


def test_lines_break_where_a_value_is_missing_and_text_is_escaped():
    drawing = Drawing(100, 100, "a < b & c")
    panel = Panel(drawing, 10, 10, 80, 80, (0, 4), (0, 1))
    panel.series([0, 1, 2, 3, 4], [0.1, 0.2, float("nan"), 0.3, 0.4], Style(mark="circle"))
    root = ET.fromstring(drawing.svg())
    assert len(root.findall(f"{SVG}path")) == 2 and len(root.findall(f"{SVG}circle")) == 4
    assert root.find(f"{SVG}title").text == "a < b & c"
    assert panel.py(0) == 90 and panel.px(4) == 90
    assert wrap("one two three", text_width("one two", 10), 10) == ["one two", "three"]


@pytest.fixture
def command(demo, report_cache, tmp_path, monkeypatch, capsys):
    """Run ``wbtui`` over the cache (whose heads the demo's data has computed), with no service in reach."""
    for name, value in (("CACHE", report_cache), ("RUNTIME", tmp_path / "run"), ("LOG", tmp_path / "log")):
        monkeypatch.setenv(f"WBTUI_{name}_DIR", str(value))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("WBTUI_MODEL_ROOTS", "WBTUI_SAE_ROOTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*words: str):
        code = main(list(words))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_the_command_writes_a_report_of_one_sae(command, tmp_path):
    code, out, err = command("report", "demo@L3", "--no-compute", "--permutations", "20", "-o", str(tmp_path / "r"))
    assert code == 0, err
    assert (tmp_path / "r" / "report.md").is_file() and str(tmp_path / "r" / "report.md") in out
    assert "experiment 2" in err


def test_a_fault_of_ours_is_one_line_and_a_traceback_in_the_log(command, monkeypatch, tmp_path):
    # the command module `open` hides the builtin in wbtui.cli: the log could not be written
    monkeypatch.delenv("WBTUI_DEBUG", raising=False)
    monkeypatch.setattr("wbtui.report.write.build", lambda *_, **__: {}["planted"])
    code, _, err = command("report", "demo@L3", "--no-compute", "-q")
    assert code == 1 and "KeyError: 'planted'" in err and len(err.splitlines()) == 1
    assert "Traceback" in (tmp_path / "log" / "crash.log").read_text()


def test_the_command_refuses_what_it_cannot_do(command, tmp_path):
    assert command("report", "demo@L3#5")[0] == 2
    assert command("report", "nomodel")[0] == 2
    code, _, err = command("report", "demo", "--no-compute", "-q")
    assert code == 2 and "not computed" in err
    assert not list(tmp_path.glob("wbtui-report*"))
    code, out, _ = command("report", "demo", "L5", "--no-attention", "--no-compute", "-q", "--permutations", "20")
    assert code == 0 and (tmp_path / "wbtui-report-demo" / "report.md").is_file() and "cannot be told" in out
