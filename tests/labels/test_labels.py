"""Labels and densities from files: what is read, what is refused, and that nothing is half imported."""

from __future__ import annotations

import gzip
import json
import re
import sqlite3
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.tui.place import Place, screen_text, settled, until
from wbtui.errors import StoreError, UsageError, WbtuiError
from wbtui.features.export import write
from wbtui.features.order import order
from wbtui.features.query import QueryError, parse
from wbtui.features.table import FeatureTable
from wbtui.labels import book as books
from wbtui.labels.belongs import Target, target_of
from wbtui.labels.book import LabelBook, import_files
from wbtui.labels.readers import CsvColumns

TARGET = Target("gemma@L20", "f" * 64, 50, 20, ("google/gemma-2-2b", "gemma-2-2b"))
SOURCE = "20-gemmascope-res-0k"


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WBTUI_DATA_DIR", str(tmp_path / "data"))


def batch(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A Neuronpedia batch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps({"modelId": "gemma-2-2b", "layer": SOURCE, **row}) + "\n")
    return path


def explanation(index: int, text: str, **more: Any) -> dict[str, Any]:
    """A line of explanations/; the index is text, as it is there."""
    row = {"index": str(index), "description": text, "typeName": "oai_token-act-pair", "explanationModelName": "gpt-4o"}
    return {**row, "embedding": [0.1] * 256, **more}


def export_folder(root: Path) -> Path:
    """A source's folder with two batches of explanations and one of features."""
    batch(root / "explanations" / "batch-0.jsonl.gz", [explanation(3, " words about Doctors"), explanation(7, "ж")])
    batch(root / "explanations" / "batch-1.jsonl.gz", [explanation(3, "medicine", typeName="np_max-act")])
    dead_and_rare = [{"index": "7", "frac_nonzero": 0.0}, {"index": "3", "frac_nonzero": 2.5e-5}]
    batch(root / "features" / "batch-0.jsonl.gz", dead_and_rare)
    return root


def book() -> LabelBook:
    return LabelBook(TARGET.fingerprint, TARGET.d_sae)


def test_a_neuronpedia_folder_is_read_and_importing_it_twice_changes_nothing(tmp_path: Path) -> None:
    folder = export_folder(tmp_path / "source")
    first = import_files(TARGET, [folder])
    assert (first.files, first.labels, first.known, first.densities) == (3, 3, 0, 2)
    assert [(x.text, x.author, x.origin) for x in book().of(3)] == [
        ("words about Doctors", "gpt-4o", SOURCE),
        ("medicine", "gpt-4o", SOURCE),
    ]
    density = book().density()
    assert density[7] == 0
    assert density[3] == np.float32(2.5e-5)
    assert np.isnan(density).sum() == 48
    assert book().matching("DOCTOR").nonzero()[0].tolist() == [3]
    assert book().matching("Ж").nonzero()[0].tolist() == [7]
    before = book().origins()
    again = import_files(TARGET, [folder])
    assert (again.labels, again.known, again.replaced) == (0, 3, 0)
    strip = [{k: v for k, v in row.items() if k != "imported"} for row in book().origins()]
    assert strip == [{k: v for k, v in row.items() if k != "imported"} for row in before]


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"index": "50"}, ["feature 50", "gemma-2-2b", "gemma@L20", "0 to 49"]),
        ({"index": "1", "modelId": "llama3.1-8b"}, ["llama3.1-8b", "gemma@L20", "google/gemma-2-2b", "--model-id"]),
        ({"index": "1", "layer": "12-gemmascope-res-0k"}, ["12-gemmascope-res-0k", "layer 20", "gemma@L20"]),
        ({"index": "1", "layer": "20-gemmascope-res-65k"}, ["65k", "50 features", "gemma@L20"]),
    ],
)
def test_a_file_of_another_sae_is_refused_with_both_named(
    tmp_path: Path, row: dict[str, Any], named: list[str]
) -> None:
    file = batch(tmp_path / "batch-0.jsonl.gz", [explanation(0, "fine"), {"description": "x", **row}])
    with pytest.raises(UsageError) as caught:
        import_files(TARGET, [file])
    assert all(part in caught.value.line() for part in named), caught.value.line()
    assert "\n" not in caught.value.line()
    assert book().origins() == []
    assert books.books() == []


def test_a_model_by_another_name_is_taken_when_the_user_says_so(tmp_path: Path) -> None:
    file = batch(tmp_path / "batch-0.jsonl.gz", [explanation(1, "x", modelId="my-gemma")])
    with pytest.raises(UsageError, match="my-gemma"):
        import_files(TARGET, [file])
    trusted = Target(**{**TARGET.__dict__, "trusted": "my-gemma"})
    assert import_files(trusted, [file]).labels == 1


def half(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    "fault", ["truncated", "not gzip", "not json", "no index", "long line", "surrogates", "csv ids"]
)
def test_bad_files_are_one_line_and_leave_what_was_there(
    tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = export_folder(tmp_path / "good")
    import_files(TARGET, [good])
    before = (book().of(3), str(book().density()), len(book().origins()))
    bad = tmp_path / "batch-9.jsonl.gz"
    rows = [explanation(i, f"label {i} " + str(np.random.default_rng(i).random(40))) for i in range(40)]
    if fault == "csv ids":
        bad = tmp_path / "bad.csv"
        bad.write_text("name,label\n1,x\n")
    elif fault == "not gzip":
        bad.write_bytes(b"plain")
    elif fault == "long line":
        monkeypatch.setattr("wbtui.labels.readers.MAX_LINE", 5000)
        batch(bad, [*rows[:20], explanation(5, "y" * 6000)])
    elif fault == "no index":
        batch(bad, rows)
        with gzip.open(bad, "at") as file:
            file.write('{"description": "x"}\n')
    else:
        batch(bad, rows)
        if fault == "truncated":
            half(bad)
        elif fault == "not json":
            with gzip.open(bad, "at") as file:
                file.write('{"index": "1", "descr')
        else:
            with gzip.open(bad, "ab") as file:
                file.write(b'{"index": "1", "description": "\xff"}\n')
    with pytest.raises(WbtuiError) as caught:
        import_files(TARGET, [good, bad])
    assert bad.name in caught.value.line()
    assert "\n" not in caught.value.line()
    assert caught.value.found and caught.value.expected
    assert caught.value.do.removesuffix("nothing was imported").strip("; "), "what to do about it"
    assert isinstance(caught.value, UsageError if fault == "csv ids" else StoreError)
    assert (book().of(3), str(book().density()), len(book().origins())) == before


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", b"1,x\n"),
        ("gone.csv", None),
        ("folder", "folder"),
        ("a.csv", b""),
        ("a.csv", b"label,density\nx,0.1\n"),
        ("a.csv", b"id,colour\n1,red\n"),
        ("a.csv", b"id,label\n1\n"),
        ("a.csv", b'id,label\n1,"x\n'),
        ("a.csv", b"id,label\n-1,x\n"),
        ("a.csv", b"id,label\n1.5,x\n"),
        ("a.csv", b"id,label\n50,x\n"),
        ("a.csv", b"id,density\n1,many\n"),
        ("a.csv", b"id,density\n1,2\n"),
        ("a.csv", b"id,log_density\n1,2\n"),
        ("a.csv", b"id,label\n1,\xff\n"),
        ("a.csv", b"id,label\n1," + b"x" * (9 << 20)),
        ("a.csv.gz", b"not gzip"),
        ("a.jsonl", b'{"index": "1"}\n'),
        ("a.jsonl", b"[1]\n"),
        ("a.jsonl", b"[" * 100_000),
        ("a.safetensors", b"junk"),
        ("a.safetensors", (1 << 62).to_bytes(8, "little") + b"{}"),
        ("a.safetensors", {"other": np.zeros(50, "float32")}),
        ("a.safetensors", {"sparsity": np.zeros(50, "int32")}),
        ("a.safetensors", {"sparsity": np.zeros(49, "float32")}),
        ("a.safetensors", {"sparsity": np.ones(50, "float32")}),
    ],
)
def test_every_refusal_says_what_was_found_what_was_expected_and_what_to_do(
    name: str, content: Any, tmp_path: Path
) -> None:
    good = tmp_path / "good.csv"
    good.write_text("id,label\n2,fine\n")
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "folder":
        path.mkdir()
    elif content is not None:
        save_file(content, path)
    with pytest.raises(WbtuiError) as caught:
        import_files(TARGET, [good, path])
    error = caught.value
    assert name in error.found and error.expected, error.line()
    assert error.do.removesuffix("nothing was imported").strip("; "), error.line()
    assert "\n" not in error.line() and len(error.line()) < 400
    assert books.books() == [] or book().origins() == [], "nothing half imported"


def test_a_huge_file_is_streamed(tmp_path: Path) -> None:
    path = tmp_path / "huge.csv"
    with path.open("w") as file:
        file.write("feature,label\n")
        for i in range(120_000):
            file.write(f"{i % 50},{'z' * 200}{i % 50}\n")
    tracemalloc.start()
    try:
        with pytest.raises(UsageError, match="more than 4,096 lines"):
            import_files(TARGET, [path])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 20_000_000
    assert peak < 4_000_000
    assert book().origins() == []


def test_sparsity_holds_log10_densities(tmp_path: Path) -> None:
    logs = np.linspace(-10, 0, 50).astype("float32")
    save_file({"sparsity": logs}, tmp_path / "sparsity.safetensors")
    assert import_files(TARGET, [tmp_path]).densities == 50
    density = book().density()
    assert density[0] == 0
    assert density[1:] == pytest.approx(10.0 ** logs[1:].astype("float64"), rel=1e-6)
    save_file({"sparsity": logs[:49]}, tmp_path / "sparsity.safetensors")
    with pytest.raises(UsageError, match=r"sparsity of \[49\].*\[50\]"):
        import_files(TARGET, [tmp_path])


def test_csv_columns_are_found_or_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.tsv"
    path.write_text('\ufeffFeature_Index\tDescription\tlog_density\n#4\t"two\tparts"\t-3\n5\t\t-2\n', encoding="utf-8")
    import_files(TARGET, [path])
    assert [x.text for x in book().of(4)] == ["two\tparts"]
    assert book().density()[[4, 5]] == pytest.approx([1e-3, 1e-2])
    other = tmp_path / "other.csv"
    other.write_text("row,what\n9,cats\n")
    import_files(TARGET, [other], CsvColumns("row", "what"))
    assert book().of(9)[0].text == "cats"
    other.write_text("id,density\n9,-3\n")
    with pytest.raises(StoreError, match="log_density"):
        import_files(TARGET, [other])


def test_origins_are_removed_one_by_one_and_a_damaged_book_is_one_line(tmp_path: Path) -> None:
    import_files(TARGET, [export_folder(tmp_path / "s")])
    (tmp_path / "a.csv").write_text("id,label\n1,mine\n")
    import_files(TARGET, [tmp_path / "a.csv"])
    number = next(row["id"] for row in book().origins() if row["kind"] == "csv")
    assert book().remove(number) == 1
    assert book().of(1) == []
    assert len(book().of(3)) == 2
    with pytest.raises(UsageError, match="origin 99"):
        book().remove(99)
    book().remove()
    assert books.books() == []
    book().path.write_bytes(b"not a database, but long enough to be read as one" * 40)
    with pytest.raises(StoreError, match="label file"):
        book().of(3)


def test_an_import_waits_for_no_reader_and_readers_see_all_or_nothing(tmp_path: Path) -> None:
    import_files(TARGET, [export_folder(tmp_path / "s")])
    writer = sqlite3.connect(book().path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM labels")
    assert len(book().of(3)) == 2
    writer.execute("ROLLBACK")
    writer.close()


def imported(place: Place, tmp_path: Path) -> FeatureTable:
    """A table whose SAE has labels: hostile text, one dead feature."""
    plan = place.plan("L1")
    path = tmp_path / "labels.csv"
    path.write_text('id,label,density\n5,"=SUM(1) \x1b[31mDoctors",0.25\n6,plain,0\n7,,1e-5\n', encoding="utf-8")
    import_files(target_of(plan), [path])
    return FeatureTable.open(place.cache, plan)


def test_filter_record_and_export(ready: Place, tmp_path: Path) -> None:
    table = imported(ready, tmp_path)

    def rows(text: str) -> list[int]:
        return np.flatnonzero(parse(text).mask(table)).tolist()

    assert rows("label:doctor") == [5]
    assert rows("!label:doctor") == [6]
    assert rows("label:re:^pl") == [6]
    assert rows('label:"SUM(1)"') == [5]
    assert rows("density<1e-4") == [6, 7]
    assert rows("dead") == [6]
    assert rows("!dead") == [5, 7]
    assert rows("labelled") == [5, 6]
    assert str(parse("label:doctor")) == 'label:"doctor"'
    assert parse(str(parse("label:re:^a b"))).root == parse("label:re:^a b").root
    record = table.record(5)["data"]
    assert record["labels"][0]["text"] == "=SUM(1) ␛[31mDoctors"
    assert (record["density"], record["dead"]) == (0.25, False)
    assert "data" in record["note"]
    out = tmp_path / "f.csv"
    write(table, [5, 6, 8], None, "csv", out)
    header, five, six, eight = out.read_text(encoding="utf-8").splitlines()
    assert header.endswith("label,density,dead")
    assert five.endswith("'=SUM(1) ␛[31mDoctors,0.25,false")
    assert six.endswith("plain,0.0,true")
    assert eight.endswith(",,")
    assert json.loads((tmp_path / "f.csv.meta.json").read_text())["columns"]["density"].startswith("data")


def test_the_first_label_is_a_column_that_sorts(ready: Place, tmp_path: Path) -> None:
    table = FeatureTable.open(ready.cache, ready.plan("L1"))
    assert not table.known("label").any() and order(table, [("label", False)])[0] == 0
    more = tmp_path / "more.csv"
    imported(ready, tmp_path)
    more.write_text("id,label\n5,a second label\n3,Zebras\n", encoding="utf-8")
    plan = table.plan
    assert plan is not None
    import_files(target_of(plan), [more])
    assert table.refresh()
    assert np.flatnonzero(table.known("label")).tolist() == [3, 5, 6]
    assert table.column("label")[[3, 4, 6]].tolist() == ["Zebras", "", "plain"]
    assert table.text("label", 5) == "=SUM(1) \x1b[31mDoctors"  # the first one
    assert order(table, [("label", False)])[:4].tolist() == [5, 6, 3, 0]
    assert order(table, [("label", True)])[:4].tolist() == [3, 6, 5, 0]
    assert order(table, [("label", False)], np.array([3, 4, 6])).tolist() == [6, 3, 4]
    with pytest.raises(QueryError, match="label:text"):
        parse("label=plain")
    assert parse("label").root == parse('"label"').root  # the word stays one to search for


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 50)])
async def test_labels_are_a_column_of_the_explorer(ready: Place, tmp_path: Path, size: tuple[int, int]) -> None:
    imported(ready, tmp_path)
    app = ready.app(ready.address("L1", 30))
    async with app.run_test(size=size) as pilot:
        main = await settled(pilot)
        main.set_view(replace(main.view, columns=("id", "label", "writes"), sort=(("label", False),)))
        unsorted = main.arranged
        main.rearrange()
        await until(pilot, lambda: main.arranged is not unsorted, "the new order")
        await pilot.press("home")
        await settled(pilot)
        head, first, second = [line for line in screen_text(app).splitlines() if re.match("[ ▸]+(#|5|6) ", line)][:3]
        assert "label▲" in head and "writes" in head
        assert re.match("▸  +5  =SUM\\(1\\) ␛\\[31mDoctors ", first) and re.match("   +6  plain ", second)


def test_an_import_shows_in_an_open_table(ready: Place, tmp_path: Path) -> None:
    table = FeatureTable.open(ready.cache, ready.plan("L1"))
    assert table.record(5)["data"] is None
    assert not parse("labelled").mask(table).any()
    assert "no labels are imported" in parse("label:x").why_empty(table)
    for text, at in (("dead", 0), ("semantic !dead", 10), ("z_max>1 | dead=no", 10)):
        with pytest.raises(QueryError, match="no densities are imported.*wbtui labels import") as error:
            parse(text).mask(table)
        assert error.value.position == at
    imported(ready, tmp_path)
    assert table.refresh()
    assert parse("labelled").mask(table).sum() == 2


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 50)])
async def test_the_card_shows_labels_as_data(ready: Place, tmp_path: Path, size: tuple[int, int]) -> None:
    imported(ready, tmp_path)
    app = ready.app(ready.address("L1", 5))
    async with app.run_test(size=size) as pilot:
        await settled(pilot)
        text = screen_text(app)
        assert "Doctors" in text
        assert "data" in text
        assert "\x1b[31m" not in text
