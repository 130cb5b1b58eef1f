"""Lines as drawn: exact widths, noise drawn in, words safe."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from rich.cells import cell_len

from tests.features import make
from tests.tui.place import HOSTILE, V, vocabulary_columns
from wbtui import schema
from wbtui.features.vocabulary import Vocabulary
from wbtui.tui import state as st
from wbtui.tui.draw import frame
from wbtui.tui.draw.bars import bar, histogram, spark
from wbtui.tui.draw.card import Look, card_lines, short_card
from wbtui.tui.draw.line import cut, rule, spread, text_of, to_strip, width_of, wrap
from wbtui.tui.draw.page import page_lines
from wbtui.tui.draw.population import make_population, merged, place
from wbtui.tui.draw.rows import format_value, header, layout, row_line
from wbtui.tui.facts import Meaning
from wbtui.tui.theme import PALETTES

TABLE = make.table(n=120, v=V, bad=(4,))


def test_a_bar_beyond_noise_is_light_up_to_it_and_solid_after() -> None:
    text = text_of(bar(8.0, 10.0, 20, noise=5.0))
    assert text == "░" * 10 + "█" * 6 + " " * 4


def test_a_bar_inside_noise_is_light_with_a_mark_where_noise_ends() -> None:
    text = text_of(bar(3.0, 10.0, 20, noise=5.0))
    assert text == "░" * 6 + " " * 4 + "┊" + " " * 9


def test_a_bar_just_beyond_noise_still_shows() -> None:
    assert "▏" in text_of(bar(5.01, 10.0, 20, noise=5.0))


@given(some.floats(allow_nan=True), some.floats(allow_nan=True), some.integers(0, 40), some.floats(allow_nan=True))
def test_a_bar_has_its_width_whatever_it_is_given(value: float, full: float, width: int, noise: float) -> None:
    assert width_of(bar(value, full, width, noise)) == width


def test_spark_shows_every_value_above_zero() -> None:
    assert spark(np.array([0.0, 1e-9, 0.5, 1.0])) == " ▁▄█"
    assert spark(np.zeros(3)) == "   "


def test_histogram_puts_what_lies_outside_into_the_outer_bins() -> None:
    shares = histogram(np.array([-9.0, 0.5, 1.5, 9.0, np.nan]), np.array([0.0, 1.0, 2.0]))
    assert shares.tolist() == [0.5, 0.5]


@given(some.lists(some.tuples(some.text(max_size=6), some.just("text")), max_size=5), some.integers(0, 30))
def test_cut_gives_the_width(spans: list[tuple[str, str]], width: int) -> None:
    safe = [("".join(c for c in text if c.isprintable() and c.isascii()), role) for text, role in spans]
    assert width_of(cut(safe, width)) == width


def test_spread_rule_wrap() -> None:
    assert text_of(spread([("abcdef", "text")], [("xy", "text")], 6)) == "abc…xy"
    assert text_of(rule(12, "AB", "z")) == "AB ─────── z"
    assert [text_of(line) for line in wrap(["aa", "bb", "cc", "dd"], 5)] == ["aa bb", "cc dd"]


def test_equal_roles_become_one_segment() -> None:
    strip = to_strip([("a", "text"), ("b", "text"), (" ", "dim"), ("c", "strong")], 6, PALETTES["rich"])
    assert [s.text for s in strip] == ["ab ", "c", "  "] or [s.text for s in strip] == ["ab ", "c  "]
    assert strip.cell_length == 6


@pytest.mark.parametrize("width", [40, 57, 80, 110, 160])
@pytest.mark.parametrize("columns", [st.DEFAULT_COLUMNS, st.WIDE_COLUMNS, ("id",), ("id", "reads", "against")])
def test_rows_and_header_fill_the_width(width: int, columns: tuple[str, ...]) -> None:
    cells = layout(columns, width, TABLE.n)
    assert width_of(header(cells, st.FIRST_SORT, None)) <= width
    for row in (0, 4, 33):
        assert width_of(row_line(TABLE, row, cells, cursor=True, marked=True)) <= width


def test_columns_that_do_not_fit_go_from_the_right_but_words_and_number_stay() -> None:
    names = [c.name for c in layout(st.DEFAULT_COLUMNS, 34, 1024)]
    assert names[0] == "id"
    assert "writes" in names
    assert "writes.evidence" not in names


def test_a_row_says_what_it_cannot_show() -> None:
    cells = layout(st.DEFAULT_COLUMNS, 80, TABLE.n)
    bad = text_of(row_line(TABLE, 4, cells, cursor=False, marked=False))
    assert "(not finite)" in bad
    assert "nan" not in bad
    absent = make.FeatureTable.from_arrays({}, n=3)
    assert "…" in text_of(row_line(absent, 1, cells, cursor=False, marked=False))


def test_a_zero_row_and_absent_reads_say_so() -> None:
    columns = make.columns(10, V)
    columns["flags"][2] = schema.FLAG_ZERO_DECODER
    columns["flags"][3] = schema.FLAG_NO_READS
    table = make.FeatureTable.from_arrays(columns, vocab=make.vocabulary(V), nulls=[make.null()])
    look = Look()
    assert "(zero row)" in text_of(row_line(table, 2, layout(st.DEFAULT_COLUMNS, 80, 10), cursor=False, marked=False))
    assert "zero: it writes nothing" in _text(card_lines(table, 2, 60, 36, look))
    assert "does not read the residual stream" in _text(card_lines(table, 3, 60, 36, look))
    assert "does not read the residual stream" in _text(short_card(table, 3, 120, 9, look))
    assert "does not read the residual stream" in _text(page_lines(table, 3, 120, look)).replace("\n", " ")


@pytest.mark.parametrize("width", [40, 58, 62, 90, 118, 160])
def test_cards_keep_their_width_and_height(width: int) -> None:
    populations = {"writes.z_max": make_population(TABLE, "writes.z_max")}
    for row in range(40):
        for tokens in (False, True):
            look = Look(marked=True, tokens=tokens, layer=2, layers=4, populations=populations)  # type: ignore[arg-type]
            for lines in (card_lines(TABLE, row, width, 34, look), short_card(TABLE, row, width, 8, look)):
                assert len(lines) <= 34
                assert all(width_of(line) <= width for line in lines)
            assert all(width_of(line) <= width for line in page_lines(TABLE, row, width, look))


def test_the_noise_line_stands_where_the_list_sinks_into_noise() -> None:
    row = next(r for r in range(TABLE.n) if 1 <= int(TABLE.column("writes.n_words")[r]) < 8)
    lines = [text_of(line) for line in card_lines(TABLE, row, 62, 40, Look())]
    noise = next(i for i, line in enumerate(lines) if "99 % of noise" in line.split("│")[0])
    head = next(i for i, line in enumerate(lines) if line.startswith("WRITES"))
    assert noise - head - 1 == int(TABLE.column("writes.n_words")[row])


def test_a_list_inside_noise_says_so_and_stays_visible() -> None:
    row = next(r for r in range(TABLE.n) if TABLE.kind(r) == "none")
    text = _text(card_lines(TABLE, row, 62, 40, Look()))
    assert "all inside noise" in text
    assert TABLE.words(row)[0].text in text


def test_late_and_early_layers_carry_their_warning() -> None:
    assert "late layer" in _text(card_lines(TABLE, 0, 62, 40, Look(layer=3, layers=6)))
    assert "early layer" in _text(card_lines(TABLE, 0, 62, 40, Look(layer=0, layers=6)))
    middle = _text(card_lines(TABLE, 0, 62, 40, Look(layer=2, layers=6)))
    assert "late layer" not in middle
    assert "early layer" not in middle


def test_the_card_names_itself_a_reconstruction() -> None:
    assert "reconstruction of arXiv 2601.22447" in _text(card_lines(TABLE, 0, 62, 40, Look()))
    assert "reconstruction of arXiv 2601.22447" in _text(page_lines(TABLE, 0, 118, Look()))


def test_hostile_tokens_draw_safely_everywhere() -> None:
    vocab = Vocabulary(vocabulary_columns(HOSTILE))
    table = make.FeatureTable.from_arrays(make.columns(60, V), vocab=vocab, nulls=[make.null(v=V)])
    for row in range(60):
        for tokens in (False, True):
            look = Look(tokens=tokens)
            lines = [*card_lines(table, row, 60, 36, look), *page_lines(table, row, 118, look)]
            lines += [
                *short_card(table, row, 80, 8, look),
                row_line(table, row, layout(st.WIDE_COLUMNS, 115, 60), cursor=False, marked=False),
            ]
            for line in lines:
                text = text_of(line)
                assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text), repr(text)
                assert not any(c in text for c in "\u202e\u200b\u2028\u0301\u00ad")
                assert sum(cell_len(c) for c in text) == cell_len(text)


def test_population_places_a_value_and_its_share() -> None:
    crowd = make_population(TABLE, "writes.z_max")
    assert crowd is not None
    values = TABLE.column("writes.z_max")
    best = int(np.nanargmax(values))
    assert crowd.above(float(values[best])) == pytest.approx(1 - 1 / 119)
    assert place(crowd, float(values[best]), 20) == len(merged(crowd.shares["other"], 20)) - 1
    assert place(crowd, -99.0, 20) == 0
    assert merged(crowd.shares["other"], 7).sum() == pytest.approx(1)
    assert len(merged(crowd.shares["other"], 7)) <= 7


def test_one_feature_has_no_population() -> None:
    table = make.table(n=1, v=V)
    assert make_population(table, "writes.z_max") is None
    assert card_lines(table, 0, 62, 36, Look())


def test_values_have_the_decimals_of_their_metric() -> None:
    assert format_value("writes.z_max", np.float32(9.44)) == "9.4"
    assert format_value("writes.evidence", np.float32(0.99)) == "1.0"
    assert format_value("selfcos", np.float32(-0.123)) == "-.12"
    assert format_value("d_norm", np.float32(1.0)) == "1.00"
    assert format_value("writes.n_words", np.int8(9)) == "9"
    assert format_value("lev", np.float32("nan")) == "–"
    assert format_value("same", np.bool_(True)) == "yes"


def test_line_one_keeps_definition_null_and_mask_at_80_columns() -> None:
    meaning = Meaning("folded", "noise: 2,000 directions", "mask 410 of 8,192 tokens")
    for width in (60, 80, 120):
        text = text_of(frame.crumb(["demo", "L3 resid_post", "#737"], meaning, width))
        assert cell_len(text) == width
        assert "folded" in text
        assert "2,000" in text
        assert "410" in text


def test_shares_stand_over_those_of_noise() -> None:
    shares = {"coherent": 0.061, "single": 0.22, "diffuse": 0.09, "none": 0.63}
    noise = {"coherent": 0.002, "single": 0.007, "diffuse": 0.001, "none": 0.99}
    lines = [text_of(line) for line in frame.shares({"features": shares, "noise": noise}, 57)]
    assert "set 6.1 %" in lines[0]
    assert "set 0.2 %" in lines[1]
    assert "noise" in lines[1]


def test_durations_and_jobs_in_words() -> None:
    assert [frame.duration(s) for s in (0.2, 12, 400, 9000)] == ["1 s", "12 s", "7 min", "2.5 h"]
    assert frame.job_text({"now": "tokens", "fraction": 0.5, "eta": 12.0}) == "features 50 %, 12 s left"
    assert "left" not in frame.job_text({"now": "null", "fraction": 0.1, "eta": math.inf})


def _text(lines: list[list[tuple[str, str]]]) -> str:
    return "\n".join(text_of(line) for line in lines)
