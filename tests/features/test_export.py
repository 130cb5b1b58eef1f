"""Exports read back exactly, whatever the tokens hold."""

from __future__ import annotations

import csv
import io
import json
import math

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.features import make
from wbtui.errors import StoreError, UsageError
from wbtui.features import export
from wbtui.features.vocabulary import Vocabulary

HOSTILE = [
    "=cmd()", "+1", "-1", "@x", "\tx", "\rx", "'=1", "''+", "a,b", 'a"b', "a\nb", "NA", "null", "nan", "None", "", " ",
    " x", "\x00", "\x1b[31m", "\u202eabc", "\ud800", "é", "💥", "[1, 2]", '["a"]', "\\", "#REF!", "1e5", "TRUE",
    "\u2028",
]  # fmt: skip


def hostile_table(texts=HOSTILE):
    """A table whose lists run through all the hostile tokens."""
    arrays = make.columns(n=40, v=200)
    for name in ("writes.top_ids", "writes.bottom_ids", "reads.top_ids", "writes.word_ids"):
        width = arrays[name].shape[1]
        arrays[name] = ((np.arange(40)[:, None] + np.arange(width)) % len(texts)).astype(np.int32)
    nulls = [make.null("isotropic", n=60), make.null("decoder_cov", n=60)]
    return make.FeatureTable.from_arrays(arrays, vocab=Vocabulary.from_texts(texts), nulls=nulls, model="-m", sae="L0")


TABLE = hostile_table()
ROWS = np.arange(39, -1, -1)


def csv_text(table=TABLE, rows=ROWS, columns=None):
    out = io.StringIO()
    export.write(table, rows, columns, "csv", out)
    return out.getvalue()


def test_every_default_column_reads_back_with_the_csv_module():
    lines = list(csv.DictReader(io.StringIO(csv_text())))
    assert len(lines) == 40
    for row, line in zip(ROWS.tolist(), lines, strict=True):
        assert int(line["id"]) == row
        assert export.unguard(line["address"]) == TABLE.origin.address(row)
        ids = json.loads(line["writes.top_pos_ids"])
        assert ids == TABLE.column("writes.top_ids")[row].tolist()
        assert json.loads(line["writes.top_pos"]) == [TABLE.vocab.shown(t) for t in ids]
        assert np.float32(line["writes.z_max"]) == TABLE.column("writes.z_max")[row]
        assert line["semantic.writes"] == ("true" if TABLE.column("semantic")[row] else "false")
        assert line["writes.class"] in ("none", "single", "coherent", "diffuse")


def test_pandas_reads_lists_numbers_and_classes_exactly():
    import pandas as pd

    frame = pd.read_csv(io.StringIO(csv_text()))
    assert list(frame["id"]) == ROWS.tolist()
    for name in ("writes.top_pos", "writes.top_neg", "reads.top_pos", "writes.words"):
        ids = [json.loads(cell) for cell in frame[f"{name}_ids"]]
        shown = TABLE.vocab.word if name.endswith("words") else TABLE.vocab.shown
        assert [json.loads(cell) for cell in frame[name]] == [[shown(t) for t in row] for row in ids]
    np.testing.assert_array_equal(frame["writes.z_max"].to_numpy(np.float32), TABLE.column("writes.z_max")[ROWS])
    assert frame["semantic.writes"].dtype == bool
    assert frame["writes.class"].notna().all()


def test_no_cell_is_a_formula_but_numbers_stay_numbers():
    for line in csv.reader(io.StringIO(csv_text())):
        for cell in line:
            if cell[:1] in tuple("=+-@\t\r"):
                float(cell)  # only a number may begin so
    line = next(csv.DictReader(io.StringIO(csv_text(rows=[0], columns=["address", "writes.z_min"]))))
    assert line["address"] == "'-m@L0#0"
    assert float(line["writes.z_min"]) < 0


@given(st.text())
@settings(max_examples=400, deadline=None)
def test_guard_is_undone_and_never_leaves_a_formula(text):
    assert export.unguard(export.guard(text)) == text
    assert export.guard(text)[:1] not in tuple("=+-@\t\r")


@given(st.lists(st.text(max_size=6), min_size=25, max_size=30))
@settings(max_examples=40, deadline=None)
def test_any_tokens_survive_csv_and_json_lines(texts):
    table = hostile_table(texts)
    want = [[table.vocab.shown(t) for t in row] for row in table.column("writes.top_ids").tolist()]
    text = csv_text(table, range(40), ["writes.top_pos"])
    assert [json.loads(line["writes.top_pos"]) for line in csv.DictReader(io.StringIO(text))] == want
    import pandas as pd

    frame = pd.read_csv(io.StringIO(text))
    assert [json.loads(cell) for cell in frame["writes.top_pos"]] == want
    out = io.StringIO()
    export.write(table, range(40), ["writes.top_pos"], "jsonl", out)
    assert [json.loads(line)["writes.top_pos"] for line in out.getvalue().splitlines()] == want


def test_a_file_has_its_provenance_beside_it(tmp_path):
    path = tmp_path / "out.csv"
    export.write(TABLE, ROWS, ["id", "writes.z_max", "writes.top_pos"], "csv", path, note={"filter": "semantic"})
    meta = json.loads((tmp_path / "out.csv.meta.json").read_text())
    assert meta["address"] == "-m@L0"
    assert meta["filter"] == "semantic"
    assert meta["rows"] == 40
    assert meta["definition"]["kappa"] == 2.0
    assert meta["thresholds"]["rule"] == "envelope"
    assert set(meta["columns"]) == {"id", "writes.z_max", "writes.top_pos", "writes.top_pos_ids"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.csv", "out.csv.meta.json"]
    assert path.read_text() == csv_text(columns=["id", "writes.z_max", "writes.top_pos"])


def test_parquet_holds_lists_types_and_provenance(tmp_path):
    path = tmp_path / "out.parquet"
    export.write(TABLE, ROWS, None, "parquet", path)
    table = pq.read_table(path)
    assert table.num_rows == 40
    assert table["writes.top_pos_ids"].to_pylist() == TABLE.column("writes.top_ids")[ROWS].tolist()
    assert table["writes.top_pos"].to_pylist()[0] == [TABLE.vocab.shown(t) for t in TABLE.column("writes.top_ids")[39]]
    np.testing.assert_array_equal(table["writes.z_max"].to_numpy(), TABLE.column("writes.z_max")[ROWS])
    assert json.loads(table.schema.metadata[b"wbtui"])["schema"] == "wbtui.export/1"
    assert [p.name for p in tmp_path.iterdir()] == ["out.parquet"]


def test_json_lines_keep_numbers_and_say_null():
    arrays = make.columns(6, bad=(2,))
    table = make.FeatureTable.from_arrays(arrays, vocab=make.vocabulary(), nulls=TABLE.thresholds.nulls)
    out = io.StringIO()
    export.write(table, range(6), ["id", "z_max", "semantic", "class", "overlap", "writes.top_pos"], "jsonl", out)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert lines[2]["writes.z_max"] is None
    assert lines[2]["semantic.writes"] is None
    assert lines[2]["overlap"] is None
    assert lines[2]["writes.class"] == ""
    assert lines[2]["writes.top_pos"] == []
    assert np.float32(lines[0]["writes.z_max"]) == arrays["writes.z_max"][0]
    assert not any(isinstance(v, float) and math.isnan(v) for line in lines for v in line.values())
    text = csv_text(table, range(6), ["z_max", "semantic", "overlap"]).splitlines()
    assert text[3] == ",,"


def test_no_rows_give_a_header(tmp_path):
    assert csv_text(rows=[], columns=["id", "z_max"]) == "id,writes.z_max\n"
    export.write(TABLE, [], ["id"], "parquet", tmp_path / "e.parquet")
    assert pq.read_table(tmp_path / "e.parquet").num_rows == 0


def test_a_byte_stream_is_left_open():
    out = io.BytesIO()
    export.write(TABLE, [0], ["id"], "csv", out)
    assert out.getvalue() == b"id\n0\n"
    export.write(TABLE, [1], ["id"], "parquet", out)
    assert not out.closed


def test_a_failed_export_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "out.csv"
    path.write_text("old")

    class Broken(Exception):
        pass

    class Bad:
        def __getattr__(self, name):
            raise Broken

    table = hostile_table()
    table.vocab = Bad()
    with pytest.raises(Broken):
        export.write(table, ROWS, ["writes.top_pos"], "csv", path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out.csv"]


def test_what_cannot_be_exported_is_refused(tmp_path):
    for rows, columns, format in (
        ([0], None, "xml"), ([0], ["nothing"], "csv"), ([40], None, "csv"), ([-1], None, "csv"), ([0], [], "csv"),
        ([0], ["writes.top_values"], "csv"), ([0], ["against.top_pos"], "csv"),
    ):  # fmt: skip
        with pytest.raises(UsageError):
            export.write(TABLE, rows, columns, format, tmp_path / "x")
    with pytest.raises(UsageError):
        export.write(TABLE, [0], None, "parquet", io.StringIO())
    with pytest.raises(StoreError):
        export.write(TABLE, [0], None, "csv", tmp_path / "no" / "x.csv")
    assert list(tmp_path.iterdir()) == []


def test_columns_named_twice_stand_once():
    assert csv_text(rows=[0], columns=["z_max", "writes.z_max", "id"]).splitlines()[0] == "writes.z_max,id"
