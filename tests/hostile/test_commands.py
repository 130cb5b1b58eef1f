"""Every command that prints data or words, in this process, over hostile names, tokens, labels and notes: nothing that
a terminal would obey on stdout, on stderr or in a file, JSON that says everything, columns in line."""

from __future__ import annotations

import csv
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.cells import cell_len
from wcwidth import wcswidth

from tests.hostile.made import MODEL, Hostile
from tests.hostile.texts import NAME, TOKENS, files_are_sound, harm
from wbtui import paths
from wbtui.address import Address, parse_address
from wbtui.cli import ask as ask_module
from wbtui.cli import common, main
from wbtui.display import file_text
from wbtui.features.export import unguard
from wbtui.service.client import stop


class Run:
    """Runs ``wbtui`` here; what it prints is looked at."""

    def __init__(self, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
        self._captured, self._patch = capfdbinary, monkeypatch

    def __call__(self, *words: str, code: int = 0) -> str:
        self._captured.readouterr()
        self._patch.setattr("sys.stdout.isatty", lambda: True, raising=False)  # a path is raw for programs alone
        got = main(list(words))
        out, err = (stream.decode("utf-8") for stream in self._captured.readouterr())
        where = ascii(words)
        assert got == code, (where, got, out[-400:], err[-400:])
        if words[0] == "export":  # joiners stay in CSV: scripts need them, and no column stands behind a cell
            out = out.replace("\u200c", "").replace("\u200d", "")
        for text in (out, err):
            assert not harm(text), (where, harm(text)[:9], ascii(text[:2000]))
        assert "fault in wbtui" not in err, (where, err)
        return out if code == 0 else err


@pytest.fixture
def run(hostile: Hostile, capfdbinary: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    def answered(address: Any, what: str, args: dict[str, Any], **_: Any) -> dict[str, Any]:
        return hostile.answer(what, address.sae, args)

    monkeypatch.setattr(ask_module, "ask", answered)
    yield Run(capfdbinary, monkeypatch)
    stop()  # a command that computes starts the service, which would outlive the test


def test_every_command(hostile: Hostile, run: Run, tmp_path: Path) -> None:
    folder, model = str(hostile.model), str(Address(str(hostile.model)))
    sae, other, feature = str(hostile.at(1)), str(hostile.at(3)), str(hostile.at(1, 5))
    assert (model + sae + other + feature).isprintable()
    with_json = (
        "models", f"saes {folder}", f"show {sae}", f"show {feature}", "cache ls", "cache du", "labels ls",
        f"labels ls {sae}", "notes ls", f"notes ls {sae}", "config show", f"match {sae} {other}", f"find {sae} w:東京",
        f"find {sae} w:東京 --all-layers", f"edges {feature}", f"flow {feature}", "doctor --no-devices",
    )  # fmt: skip
    for line in with_json:
        words = line.split(" ") if folder not in line else ["saes", folder]
        assert run(*words).strip(), words
        json.loads(run(*words, "--json"))
    assert "␛]0;pwn" in run("models")
    assert hostile.model.name in {m["name"] for m in json.loads(run("models", "--json"))}
    assert {s["name"] for s in json.loads(run("saes", folder, "--json"))} == {hostile.name(i) for i in range(4)}
    assert json.loads(run("show", feature, "--json"))["address"] == feature
    notes = json.loads(run("notes", "export"))["saes"][0]["features"][0]["note"]
    assert notes == "\n".join([NAME, *TOKENS]), "an export says everything"
    for line in ("cache verify", "cache gc --dry-run", "cache gc --max-size 1K --dry-run", f"compute {sae} --dry-run",
                 f"compute {model} --all-layers --dry-run --json", f"export {sae}", f"export {sae} --format jsonl",
                 "daemon logs --path", f"export {sae} --columns id,address,note,tags,label", "cache path", "notes path",
                 f"show {model}", "daemon unit", f"export {feature}"):  # fmt: skip
        run(*line.split(" "))
    log = paths.log_dir() / "daemon.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(NAME.encode() + b"\n\xff\x9b31m\n")
    assert "pwn" in run("daemon", "logs")
    file = tmp_path / f"new{NAME}.csv"
    file.write_text(f"feature,label\n3,{NAME}new\n", encoding="utf-8")
    assert "1 labels new" in run("labels", "import", sae, str(file))
    run("labels", "rm", sae)


def test_every_file(hostile: Hostile, run: Run, tmp_path: Path) -> None:
    sae, other, feature = str(hostile.at(1)), str(hostile.at(3)), str(hostile.at(1, 5))
    for words in (["notes", "export", "-o", f"n{NAME}.json"],
                  ["match", sae, other, "-o", f"m{NAME}"], ["flow", feature, "--svg", f"f{NAME}.svg"],
                  ["find", sae, "w:東京", "-o", "hits.csv"], ["find", sae, "w:東京", "-o", "hits.jsonl"],
                  ["edges", feature, "-o", "edges.csv"], ["edges", feature, "-o", "edges.json"],
                  ["export", sae, "-o", f"e{NAME}.parquet"], ["export", sae, "-o", f"e{NAME}.csv"],
                  ["export", sae, "-o", f"e{NAME}.jsonl"], ["export", sae, "--vectors", f"v{NAME}.safetensors"],
                  ["export", sae, "-o", f"kept{NAME}.csv", "--columns", "id,address,note,tags,label"],
                  ["export", sae, "-o", f"kept{NAME}.jsonl", "--columns", "id,address,note,tags,label"],
                  ["export", sae, "-o", f"kept{NAME}.parquet", "--columns", "id,address,note,tags,label"],
                  ["export", sae, "--format", "lm-eval", "--release", NAME, "--sae-id", NAME, "-o", f"l{NAME}"],
                  ["report", sae, "--no-compute", "--no-attention", "--permutations", "20", "-o", NAME]):  # fmt: skip
        run(*words)
    run("notes", "import", f"n{NAME}.json", code=2)  # a tag that no one can type
    assert files_are_sound(tmp_path) > 20
    note, tag = "\n".join([NAME, *TOKENS]), "\x1b[31m\u202etag\x9b"
    kept = [
        json.loads(line) for line in (tmp_path / f"kept{NAME}.jsonl").read_text(encoding="utf-8").split("\n") if line
    ]
    assert (kept[0]["note"], kept[0]["tags"]) == (note, tag)
    table = pq.read_table(tmp_path / f"kept{NAME}.parquet").to_pylist()
    assert [(r["id"], r["note"], r["tags"], r["address"]) for r in table] == [
        (r["id"], r["note"], r["tags"], r["address"]) for r in kept
    ]
    with open(tmp_path / f"kept{NAME}.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(unguard(r["note"]), unguard(r["tags"]), r["address"]) for r in rows] == [
        (file_text(k["note"]), file_text(k["tags"]), k["address"]) for k in kept
    ]
    assert {str(parse_address(r["address"])) for r in rows} == {str(hostile.at(1, i)) for i in range(hostile.n)}


def test_what_was_typed_comes_back_safe(hostile: Hostile, run: Run) -> None:
    model, sae = str(hostile.model), str(hostile.at(1))
    for words in ([f"--{NAME}"], ["show", f"x{NAME}"], ["show", f"{model}@{NAME[1:]}"], ["show", "\u202e\x9b"],
                  ["show", model + "@nothing"], ["show", f"{sae}#99"], ["export", sae, "--where", f"{NAME}>1"],
                  ["export", sae, "--where", f"/re:[{NAME}"], ["export", sae, "--columns", NAME], ["find", sae, NAME],
                  ["export", sae, "--sort", NAME], ["labels", "import", sae, f"gone{NAME}.csv"], [f"cmd{NAME}"],
                  ["notes", "import", f"gone{NAME}"], ["cache", "gc", "--max-size", NAME], ["saes", NAME],
                  ["screenshot", "-o", "x.svg", "--size", NAME], ["cache", NAME], ["match", sae, NAME],
                  ["saes", model, "--release", NAME], ["edges", sae], ["compute", sae, "--layer", NAME],
                  [sae]):  # fmt: skip
        run(*words, code=2)
    run("daemon", "status", code=3)


def test_a_fault_of_ours_names_no_harm(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError(f"broken {NAME}\n{NAME}")

    monkeypatch.setattr("wbtui.catalog.models.list_models", fail)
    with pytest.raises(AssertionError, match="fault in wbtui"):
        run("models", code=1)
    assert not harm((paths.log_dir() / "crash.log").read_text())
    monkeypatch.setenv("WBTUI_DEBUG", "1")
    assert "RuntimeError" in run("models", code=1)


def test_tables_are_in_line_and_json_loses_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    common.print_table(["a", "b", "c"], [[t, f"{t}|{t}", "end"] for t in TOKENS if len(t) < 99], right={1})
    lines = capsys.readouterr().out.splitlines()
    starts = {cell_len(line[: line.rindex("end")]) for line in lines[1:]}
    assert len(starts) == 1
    assert {wcswidth(line[: line.rindex("end")]) for line in lines[1:]} == starts
    data = {t: [t] for t in [*TOKENS, "\ud800", "\udcff", NAME]}
    common.print_json(data)
    out = capsys.readouterr().out
    assert not harm(out) and json.loads(out) == data
    assert re.search("東京", out), "what can be read is not escaped"


def test_no_command_writes_past_the_one_door() -> None:
    """``say``, ``print_table``, ``print_json``, ``print_path`` are safe; nothing else prints."""
    for path in Path(common.__file__).parent.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        allowed = {"common.py": 5, "download.py": 1}.get(path.name, 0)
        assert text.count("click.echo(") + text.count("click.secho(") <= allowed, path.name


def test_a_path_is_itself_for_programs_and_safe_for_people(capfdbinary: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"/x{MODEL}\udcff"
    common.print_path(name)
    assert capfdbinary.readouterr().out == name.encode("utf-8", "surrogateescape") + b"\n"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    common.print_path(name)
    assert not harm(capfdbinary.readouterr().out.decode())


def test_a_vector_in_a_hostile_file(hostile: Hostile, run: Run, tmp_path: Path) -> None:
    vector = tmp_path / f"v{NAME}.npy"
    np.save(vector, np.ones(8, dtype=np.float32))
    model = str(Address(str(hostile.model)))
    assert "NEIGHBOURS" in run("show", model, "--direction", str(vector), "--at", "L1.resid_post", "--no-compute")


def test_the_log_of_the_service_is_safe_to_page() -> None:
    from wbtui.service.logs import Plain

    try:
        raise RuntimeError(NAME)
    except RuntimeError as error:
        info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("wbtui", logging.ERROR, __file__, 1, "shard of %s failed", (NAME + "\udcff",), info)
    text = Plain("%(message)s").format(record)
    assert not harm(text) and text.count("\n") > 2
    text.encode("utf-8")
