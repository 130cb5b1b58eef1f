"""The table over product folders: absent, partial, growing, complete; provisional rows; words and records."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from tests.features import make
from wbtui.definitions import CHECK_NULLS, THRESHOLD_NULLS, MaskDefinition, TokensDefinition, to_json
from wbtui.errors import StoreError, UsageError
from wbtui.features import classes
from wbtui.features.glossary import explain, glossary
from wbtui.features.names import is_name, nearest, resolve, scalar_names
from wbtui.features.table import FeatureTable, thresholds_of
from wbtui.features.words import beyond_of
from wbtui.schema import FLAG_BAD_DECODER, FLAG_NO_READS, FLAG_ZERO_DECODER, VOCAB_SPECIAL
from wbtui.store.keys import ProductSpec
from wbtui.store.products import Product

N, ROWS = 120, 32


def spec(analysis, rows, shard_rows, **more):
    identity = {"analysis": analysis, "method_version": 1, "definition": to_json(TokensDefinition()), **more}
    return ProductSpec(analysis, identity, rows, shard_rows, model_slug="m-12345678", sae_slug="s-12345678")


def plan():
    """A plan as the catalog makes it, of invented products."""
    null = {d: spec("null", 300, 256, null=to_json(d)) for d in (*THRESHOLD_NULLS, *CHECK_NULLS)}
    return SimpleNamespace(
        model=SimpleNamespace(name="tiny", model_type="llama", d_vocab=200, n_layers=4, kind="folder", path="/no"),
        sae=SimpleNamespace(
            name="L2", hook_name="blocks.2.hook_resid_post", layer=2, site="resid_post", architecture="standard",
            d_sae=N, conventions={}, reader_layer=4, path="/no/L2", notes=(),
        ),
        definition=TokensDefinition(),
        vocab=spec("vocab", 0, 0),
        masks={"writes": spec("mask", 200, 128, mask={})},
        tokens=spec("tokens", N, ROWS, sae={"fingerprint": "abc"}),
        nulls=tuple(null[d] for d in THRESHOLD_NULLS),
        checks=tuple(null[d] for d in CHECK_NULLS),
    )  # fmt: skip


def put_whole(cache, spec_, arrays):
    product = Product(cache, spec_)
    product.begin()
    for start in range(0, spec_.rows, spec_.shard_rows):
        stop = min(start + spec_.shard_rows, spec_.rows)
        product.write_shard(start, stop, {k: a[start:stop] for k, a in arrays.items()})
    product.assemble()


def put_vocab(cache, spec_):
    v = make.vocabulary()
    arrays = {
        "text_bytes": v._text, "text_offsets": v._text_at, "raw_bytes": v._raw, "raw_offsets": v._raw_at,
        "norm_bytes": v._norm, "norm_offsets": v._norm_at, "word": v.word_ids, "flags": v.flags,
    }  # fmt: skip
    arrays["flags"] = arrays["flags"].copy()
    arrays["flags"][7] = VOCAB_SPECIAL
    Product(cache, spec_).write_whole(arrays)


def put_shard(cache, spec_, arrays, start):
    product = Product(cache, spec_)
    product.begin()
    stop = min(start + ROWS, N)
    product.write_shard(start, stop, {k: a[start:stop] for k, a in arrays.items()})


def test_from_nothing_to_complete(tmp_path):
    """GIVEN an empty cache, WHEN products land one after another, THEN the table shows each at the next refresh."""
    p, arrays = plan(), make.columns(N)
    table = FeatureTable.open(tmp_path, p)
    assert (table.n, table.complete, int(table.computed.sum()), table.vocab) == (N, False, 0, None)
    assert table.sentence(3) == "NOT COMPUTED YET"
    assert table.words(3) == []
    assert np.isnan(table.column("z_max")).all()
    assert not table.refresh()

    put_vocab(tmp_path, p.vocab)
    assert table.refresh()
    assert table.vocab is not None

    put_shard(tmp_path, p.tokens, arrays, 32)
    version = table.version
    assert table.refresh()
    assert table.version > version
    assert np.flatnonzero(table.computed).tolist() == list(range(32, 64))
    np.testing.assert_array_equal(table.column("z_max")[32:64], arrays["writes.z_max"][32:64])
    assert np.isnan(table.column("z_max")[:32]).all()
    assert table.sentence(40) == "NO NULL YET: CLASS UNKNOWN"
    assert table.words(40)[0].id == arrays["writes.word_ids"][40, 0]
    assert not table.refresh()

    put_whole(tmp_path, p.nulls[0], make.null("isotropic")._columns)
    assert table.refresh()
    assert table.thresholds.missing_kinds == ("decoder_cov",)
    assert (table.column("class")[32:64] >= 0).all()
    assert (table.column("class")[:32] == classes.UNKNOWN).all()

    put_shard(tmp_path, p.tokens, arrays, 96)  # the last one, shorter
    put_whole(tmp_path, p.nulls[1], make.null("decoder_cov")._columns)
    put_whole(tmp_path, p.checks[2], make.null("sign_flip", 1)._columns)
    assert table.refresh()
    assert int(table.computed.sum()) == 56
    assert [c.kind for c in table.checks] == ["sign_flip"]
    np.testing.assert_array_equal(table.column("writes.top_ids")[96:], arrays["writes.top_ids"][96:])

    put_whole(tmp_path, p.tokens, arrays)
    assert table.refresh()
    assert table.complete
    fresh = FeatureTable.open(tmp_path, p)
    whole = make.FeatureTable.from_arrays(arrays, vocab=make.vocabulary(), nulls=table.thresholds.nulls)
    for name in table.names():
        np.testing.assert_array_equal(table.column(name), whole.column(name), err_msg=name)
        np.testing.assert_array_equal(table.column(name), fresh.column(name), err_msg=name)
    assert table.words(7) == whole.words(7)
    assert not table.refresh()


def test_a_shard_that_goes_by_assembly_between_two_looks_is_read_from_the_whole(tmp_path):
    p, arrays = plan(), make.columns(N)
    for start in (0, 32):
        put_shard(tmp_path, p.tokens, arrays, start)
    table = FeatureTable.open(tmp_path, p)
    put_whole(tmp_path, p.tokens, arrays)
    np.testing.assert_array_equal(table.column("z_max"), arrays["writes.z_max"])
    assert table.refresh()
    assert table.complete


def test_a_damaged_shard_is_not_there(tmp_path):
    p, arrays = plan(), make.columns(N)
    for start in (0, 32):
        put_shard(tmp_path, p.tokens, arrays, start)
    table = FeatureTable.open(tmp_path, p)
    Product(tmp_path, p.tokens).shard_path(0, 32).write_bytes(b"broken")
    assert np.isnan(table.column("z_max")[:32]).all()
    assert not table.computed[:32].any()
    assert table.computed[32:64].all()
    assert table.refresh()  # the change of ``computed`` is told
    put_shard(tmp_path, p.tokens, arrays, 0)
    assert table.refresh()
    np.testing.assert_array_equal(table.column("z_max")[:64], arrays["writes.z_max"][:64])


def test_a_damaged_complete_product_is_an_error_and_not_a_crash(tmp_path):
    p = plan()
    put_whole(tmp_path, p.tokens, {"writes.z_max": np.zeros(N, np.float32)})
    with pytest.raises(StoreError, match="no column"):
        FeatureTable.open(tmp_path, p)


def test_rows_of_a_partial_product_are_read_alone(tmp_path):
    """Words of one row must not gather whole columns (a million rows of lists)."""
    p, arrays = plan(), make.columns(N)
    put_shard(tmp_path, p.tokens, arrays, 0)
    put_vocab(tmp_path, p.vocab)
    table = FeatureTable.open(tmp_path, p)
    assert table.words(3)[0].id == arrays["writes.word_ids"][3, 0]
    assert table.words(100) == []
    assert table._rows._arrays == {}


@pytest.mark.parametrize("gathered", [True, False])
def test_a_provisional_row_is_shown_marked_and_replaced(tmp_path, gathered):
    p, arrays = plan(), make.columns(N)
    put_vocab(tmp_path, p.vocab)
    put_whole(tmp_path, p.nulls[0], make.null("isotropic")._columns)
    table = FeatureTable.open(tmp_path, p)
    if gathered:
        table.column("z_max")
    lone = {name: array[40] for name, array in arrays.items()}
    lone["writes.z_max"] = np.float32(77)
    version = table.version
    table.put_provisional(40, lone)
    assert table.version > version
    assert table.provisional == {40}
    assert not table.computed[40]
    assert table.available[40]
    assert table.column("z_max")[40] == 77
    assert table.value("z_max", 40) == 77
    assert table.column("provisional").nonzero()[0].tolist() == [40]
    assert table.record(40)["provisional"] is True
    assert table.words(40)[0].id == arrays["writes.word_ids"][40, 0]
    assert np.isnan(table.column("percentile:z_max")[40])  # no stored population to stand in
    put_shard(tmp_path, p.tokens, arrays, 32)
    assert table.refresh()
    assert table.provisional == set()
    assert table.column("z_max")[40] == arrays["writes.z_max"][40]
    table.put_provisional(40, lone)
    assert table.column("z_max")[40] == arrays["writes.z_max"][40]


def test_a_provisional_row_never_hides_the_shard_that_came_unseen(tmp_path):
    """GIVEN a provisional row, WHEN its shard lands before any column was read, THEN the column is the shard's."""
    p, arrays = plan(), make.columns(N)
    table = FeatureTable.open(tmp_path, p)
    table.put_provisional(40, {"writes.z_max": 77.0})
    put_shard(tmp_path, p.tokens, arrays, 32)
    assert table.refresh()
    assert table.column("z_max")[40] == arrays["writes.z_max"][40]


def test_a_provisional_row_takes_what_the_wire_brings():
    """JSON has no NaN and no arrays: lists, None, and the mark ``unmasked``."""
    table = FeatureTable.from_arrays({}, n=3, vocab=make.vocabulary())
    table.put_provisional(1, {"writes.z_max": 5.5, "writes.lev": None, "reads.word_z": [1.0, None] + [None] * 18,
                              "writes.word_ids": [1] + [-1] * 19, "flags": 0, "unmasked": True})  # fmt: skip
    assert table.value("z_max", 1) == 5.5
    assert np.isnan(table.column("lev")[1])
    assert np.isnan(table.column("reads.word_z")[1, 1])
    assert any("unmasked" in w for w in table.record(1)["warnings"])
    with pytest.raises(StoreError, match="shape"):
        table.put_provisional(1, {"writes.word_ids": [1, 2]})


def test_provisional_rows_are_checked():
    table = FeatureTable.from_arrays({}, n=3)
    with pytest.raises(UsageError):
        table.put_provisional(3, {})
    with pytest.raises(StoreError):
        table.put_provisional(0, {"nothing": 1})


def test_mask_counts(tmp_path):
    p = plan()
    put_vocab(tmp_path, p.vocab)
    neighbours = np.zeros(200, np.int32)
    neighbours[:5] = MaskDefinition().count
    neighbours[5] = MaskDefinition().count - 1
    table = FeatureTable.open(tmp_path, p)
    assert table.masked_tokens() is None
    put_whole(tmp_path, p.masks["writes"], {"neighbours": neighbours})
    assert table.masked_tokens() == {"neighbours": 5, "special": 1, "total": 6, "of": 200, "estimated": 0}
    assert table.masked_tokens("reads") is None


# -- words and sentences -----------------------------------------------------------------------------------------------


def by_hand(z, ids, **flags):
    """One row with given words; the bar is 3 for every word."""
    arrays = make.columns(1)
    k = arrays["writes.word_z"].shape[1]
    arrays["writes.word_z"][0] = np.array([*z, *[0] * (k - len(z))])
    arrays["writes.word_ids"][0, : len(ids)] = ids
    arrays["writes.cos_tok"][0] = flags.pop("cos", 1.0)
    arrays["writes.lev"][0] = 0.0
    for name, value in flags.items():
        arrays[name][0] = value
    table = FeatureTable.from_arrays(arrays, vocab=make.vocabulary(), nulls=[make.null()])
    for name, bar in (("word_z", 3.0), ("cos_tok", 0.5), ("lev", 0.5)):
        table.with_thresholds(table.thresholds.fix(f"writes.{name}", bar))
    return table


@pytest.mark.parametrize(
    ("z", "cos", "sentence", "kind"),
    [
        ([9] * 9, 1.0, "SET OF 9 WORDS", "set 9"),
        ([9], 1.0, "ONE WORD", "one"),
        ([9] * 7, 0.0, "MIX OF 7", "mix 7"),
        ([9] * 20, 1.0, "SET OF 20+ WORDS", "set 20+"),
        ([9] * 20, 0.0, "MIX OF 20+", "mix 20+"),
        ([0], 1.0, "NO WORD BEYOND NOISE", "none"),
    ],
)
def test_sentences_by_hand(z, cos, sentence, kind):
    table = by_hand(z, [1], cos=cos)
    assert table.sentence(0) == sentence
    assert table.kind(0) == kind


def test_a_row_inside_noise_everywhere_has_no_clear_signal():
    quiet = {f"writes.{m}": -9.0 for m in ("z_max", "z_10", "delta_h")}
    table = by_hand([0], [1], cos=-1.0, **quiet)
    assert table.sentence(0) == "NO CLEAR WEIGHT-BASED SIGNAL"
    assert table.record(0)["classes"]["writes"]["no_clear_signal"] is True


@pytest.mark.parametrize(
    ("flag", "says"), [(FLAG_BAD_DECODER, "ITS WEIGHTS ARE NOT FINITE"), (FLAG_ZERO_DECODER, "ITS DECODER ROW IS ZERO")]
)
def test_rows_without_numbers_say_why(flag, says):
    table = by_hand([np.nan] * 20, [-1] * 20, flags=flag, **{"writes.z_max": np.nan})
    assert table.sentence(0) == says
    assert table.words(0) == []
    assert table.kind(0) == ""


def test_the_entropy_rule_can_find_a_set_without_words_beyond():
    from dataclasses import replace

    table = by_hand([0], [1], **{"writes.delta_h": 99.0})
    table.with_thresholds(replace(table.thresholds, rule="entropy"))
    assert table.sentence(0) == "SET OF WORDS"
    assert table.kind(0) == "set"


def test_words_are_merged_counted_and_split_by_the_bar():
    # tokens 0, 1, 2 are spellings of Paris; the shown list holds all three
    table = by_hand([9, 8, 2], [1, 5, 6])
    table.column("writes.top_ids")[0, :5] = [1, 5, 0, 2, 6]
    table.column("writes.top_values")[0, :5] = [4.5, 4.0, 3.5, 3.0, 1.0]
    words = table.words(0, k=3)
    assert [(w.text, w.count, w.inside_null) for w in words] == [
        ("Paris", 3, False), ("physicist", 1, False), ("chemist", 1, True),
    ]  # fmt: skip
    assert [w.value for w in words] == [4.5, 4.0, 1.0]


def test_a_word_outside_the_shown_list_gets_its_value_from_its_z():
    table = by_hand([9, 8], [1, 199])
    table.column("writes.top_ids")[0] = np.arange(25)
    mean, std = table.value("mean", 0), table.value("std", 0)
    assert table.words(0)[1].value == pytest.approx(mean + 8 * std)


def test_against_words_come_from_the_low_end():
    table = make.table()
    word = table.words(0, "against")[0]
    assert word.z == pytest.approx(float(table.column("against.word_z")[0, 0]))
    token = int(table.column("against.word_ids")[0, 0])
    shown = table.column("writes.bottom_ids")[0].tolist()
    if token not in shown:
        assert word.value == pytest.approx(table.value("mean", 0) - word.z * table.value("std", 0))


def test_without_strings_words_are_ids():
    table = FeatureTable.from_arrays(make.columns(2))
    assert table.words(0)[0].text == f"#{table.column('writes.word_ids')[0, 0]}"
    assert table.record(0)["writes"]["top_pos"][0]["text"].startswith("#")


# -- columns, ranks, records -------------------------------------------------------------------------------------------


def test_every_name_has_a_column_and_words_for_it():
    table = make.table(n=30, bad=(3,))
    for name in table.names():
        assert resolve(name).text == name
        column, known = table.column(name), table.known(name)
        assert column.shape == known.shape == (30,), name
        assert known.dtype == bool
        assert explain(name).meaning
        if column.dtype.kind == "f":
            assert not np.isnan(column[known]).any()
    assert len({entry.name for entry in glossary()}) == len(glossary())


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("z_max", "writes.z_max"), ("semantic", "semantic.writes"), ("reads.semantic", "semantic.reads"),
        ("semantic.either", "semantic.either"), ("kind", "writes.class"), ("class.reads", "reads.class"),
        ("evidence.reads", "reads.evidence"), ("d_norm", "d_norm"), ("percentile:z_max", "percentile:writes.z_max"),
        ("null:reads.lev", "null:reads.lev"),
    ],
)  # fmt: skip
def test_names_are_brought_to_one_spelling(name, canonical):
    assert resolve(name).text == canonical


@pytest.mark.parametrize(
    "name", ["zmx", "against.d_norm", "evidence.either", "percentile:class", "null:d_norm", "null:evidence"]
)
def test_unknown_names_are_refused(name):
    assert not is_name(name)
    with pytest.raises(UsageError):
        make.table(n=3).column(name)


def test_the_nearest_name_is_offered():
    assert nearest("z_mx")[0] == "z_max"
    assert nearest("reads.cos_tk")[0] == "reads.cos_tok"
    assert all(is_name(name) for name in nearest("semantc"))


def test_either_and_both_join_the_sides():
    table = make.table(n=60)
    writes, reads = table.column("semantic.writes"), table.column("semantic.reads")
    np.testing.assert_array_equal(table.column("semantic.either"), writes | reads)
    np.testing.assert_array_equal(table.column("semantic.both"), writes & reads)
    assert (writes != reads).any()


def test_same_marks_equal_top_tokens():
    table = make.table(n=30)
    want = table.column("writes.top_ids")[:, 0] == table.column("reads.top_ids")[:, 0]
    np.testing.assert_array_equal(table.column("same"), want)
    assert want.any()
    assert not want.all()


def test_percentiles_by_hand():
    arrays = make.columns(5)
    arrays["writes.z_max"][:] = [1, 2, 2, 4, np.nan]
    null = make.null()
    null._columns["writes.z_max"] = np.arange(300, dtype=np.float32) / 100
    table = FeatureTable.from_arrays(arrays, nulls=[null])
    np.testing.assert_allclose(table.column("percentile:z_max"), [0, 25, 25, 75, np.nan])
    assert table.percentile("z_max", 3) == 75
    # 299, 298, … 200 reach 2.00: b = 100 of 300
    assert table.null_percentile("z_max", 1) == (101 / 301, "above 66.7 % of noise")
    assert table.null_percentile("z_max", 3) == (1 / 301, "above all 300 directions of noise")
    np.testing.assert_allclose(table.column("null:z_max")[[1, 3]], [101 / 301, 1 / 301], rtol=1e-6)
    assert np.isnan(table.null_percentile("z_max", 4)[0])
    assert table.null_percentile("d_norm", 1)[1] == "random directions have no such number"


def test_a_record_is_plain_json_and_names_what_is_not_finite():
    table = make.table(n=10, bad=(4,))
    for row in range(10):
        text = json.dumps(table.record(row), allow_nan=False)
        assert json.loads(text)["schema"] == "wbtui.feature/1"
    record = table.record(0)
    assert record["address"] == "tiny@L0#0"
    top = record["writes"]["top_pos"][0]
    assert top["id"] == int(table.column("writes.top_ids")[0, 0])
    assert top["z"] == pytest.approx(table.value("z_max", 0), rel=1e-5)
    assert np.float32(record["writes"]["metrics"]["z_max"]) == table.column("z_max")[0]
    assert record["nonfinite"] == []
    assert record["null"]["writes.z_max"]["tail"] <= 1
    bad = table.record(4)
    assert bad["writes"]["metrics"]["z_max"] is None
    assert "writes.z_max" in bad["nonfinite"]
    assert bad["sentence"] == "ITS WEIGHTS ARE NOT FINITE"


def test_a_record_says_why_reads_are_absent():
    table = by_hand([9], [1], flags=FLAG_NO_READS)
    record = table.record(0)
    assert record["reads"] is None
    assert "residual stream" in record["reads_absent"]
    assert not any(name.startswith("reads") for name in record["null"])


def test_a_late_layer_is_said_to_read_weakly(tmp_path):
    p, arrays = plan(), make.columns(N)
    put_shard(tmp_path, p.tokens, arrays, 0)
    assert any("late layer" in w for w in FeatureTable.open(tmp_path, p).record(0)["warnings"])


def test_rows_out_of_range_are_refused():
    table = make.table(n=3)
    for call in (table.record, table.words, table.sentence):
        for row in (3, -1):
            with pytest.raises(UsageError):
                call(row)


def test_thresholds_for_a_while():
    table = make.table(n=30)
    before = table.thresholds
    with thresholds_of(table, before.fix("writes.word_z", 1e9)):
        assert not table.column("promotes").any()
    assert table.thresholds == before
    assert table.column("promotes").any()


def test_an_sae_of_no_features_and_one():
    for n in (0, 1):
        table = FeatureTable.from_arrays(make.columns(n) if n else {}, n=n, nulls=[make.null()])
        for name in scalar_names():
            assert table.column(name).shape == (n,), name


def test_the_room_loads_without_heavy_packages():
    code = (
        "import sys, wbtui.features.table, wbtui.features.query, wbtui.features.order, wbtui.features.export, "
        "wbtui.features.summary, wbtui.features.glossary; from wbtui.features.query import parse; parse('a z_max>1');"
        "bad = {'torch', 'transformers', 'sae_lens', 'scipy', 'pyarrow', 'pandas'} & set(sys.modules);"
        "sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_words_of_a_row_are_those_of_the_longest_list_asked_for():
    table = make.table(n=60, bad=(5,))
    for row in (0, 3, 5, 59):
        for side in ("writes", "reads", "against"):
            whole = make.table(n=60, bad=(5,)).words(row, side, 20)
            for k in (4, 20, 9):
                assert table.words(row, side, k) == whole[:k]


def test_words_beyond_noise_of_one_row_are_those_of_the_column():
    table = make.table(n=120, bad=(7,))
    for side in ("writes", "reads"):
        z, bars = table.column(f"{side}.word_z"), table.thresholds.side(side).word_z
        for nudged in (bars, np.asarray(z[0], dtype=np.float64), np.full_like(bars, np.nan)):
            many = classes.words_beyond(z, nudged)
            assert [beyond_of(row, nudged) for row in z] == many.tolist()
