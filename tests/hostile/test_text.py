"""The one display function over all of Unicode, and what stands on it: lines, errors, addresses, JSON, drawings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from wcwidth import wcswidth

from tests.features import make
from tests.hostile.texts import NAME, TOKENS, harm, hostile_text, misplaced
from wbtui.address import Address, parse_address
from wbtui.catalog.models import find_model
from wbtui.display import file_text, fit, json_text, safe_lines, safe_token_text
from wbtui.errors import UsageError, WbtuiError
from wbtui.features.export import cell_text, unguard
from wbtui.features.table import FeatureTable
from wbtui.features.vocabulary import Vocabulary
from wbtui.report.svg import Drawing
from wbtui.tui.draw.card import Look, card_lines, short_card, words_block
from wbtui.tui.draw.compare import Between, Half, compare_lines
from wbtui.tui.draw.line import Line, cut, text_of
from wbtui.tui.draw.page import page_lines
from wbtui.tui.draw.rows import layout, row_line
from wbtui.tui.filters import Guard
from wbtui.tui.plain import shown_text, use_ascii

NULLS = [make.null("isotropic", n=60), make.null("decoder_cov", n=60)]


def test_every_character_has_as_many_cells_as_it_is_said_to_have() -> None:
    for code in (*range(0x32000), *range(0xE0000, 0xE0200), 0xF0000, 0x10FFFF):  # the rest is not assigned
        shown = safe_token_text.__wrapped__(chr(code))
        if not shown.isascii():
            assert shown.isprintable() and cell_len(shown) == wcswidth(shown) > 0, hex(code)


@given(hostile_text, st.integers(0, 20))
def test_what_is_shown(text: str, width: int) -> None:
    shown = safe_token_text(text)
    assert not harm(shown, lines=False) and "\n" not in shown
    assert not misplaced(shown, cell_len(shown)), "no joining, whatever stands side by side"
    assert safe_token_text(shown) == shown, "twice is as good as once"
    cut_ = fit(shown, width)
    assert not misplaced(cut_, width)
    assert not harm(safe_lines(text)) and safe_lines(text).count("\n") == text.count("\n")
    assert not misplaced(text_of(cut([(shown, "text")], width)), width)
    line = UsageError(text, text, text).line()
    assert not harm(line, lines=False) and line
    assert WbtuiError.from_json(UsageError(text).to_json()).line() == UsageError(text).line()


@given(st.lists(hostile_text, max_size=3), st.dictionaries(hostile_text, hostile_text, max_size=2))
def test_json_loses_nothing_and_prints(items: list[str], pairs: dict[str, str]) -> None:
    for indent in (None, 2):
        text = json_text([items, pairs], indent=indent)
        assert not harm(text) and json.loads(text) == [items, pairs]
        text.encode("utf-8")


@given(hostile_text)
def test_text_in_files(text: str) -> None:
    kept = file_text(text)
    assert not harm(kept.replace("\u200c", "").replace("\u200d", ""))
    kept.encode("utf-8")
    assert file_text(kept) == kept
    assert unguard(cell_text(text)) == kept
    assert file_text("e\u0301 naïve\n\u200c東") == "e\u0301 naïve\n\u200c東", "what scripts need stays"
    drawing = Drawing(10, 10, text)
    drawing.text(0, 0, text)
    assert len(ElementTree.fromstring(drawing.svg())) > 1


NAMES = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12),
    st.binary(min_size=1, max_size=12).map(lambda b: b.replace(b"\0", b"").decode("utf-8", "surrogateescape") or "a"),
)


@given(NAMES, NAMES, st.integers(0, 10**6))
def test_an_address_can_always_be_shown_and_leads_back(model: str, sae: str, feature: int) -> None:
    model = "m" + model + "m"  # blanks around an address are not its own
    text = str(Address(model, sae, feature))
    assert text.isprintable()
    assert parse_address(text) == Address(model, sae, feature)


@pytest.mark.parametrize("text", ["a\x1b", "a\x9b31m", "a@b\x7f", "a%00", "x\0"])
def test_controls_are_refused_in_what_is_typed(text: str) -> None:
    with pytest.raises(UsageError, match="control characters"):
        parse_address(text)


# -- drawings ----------------------------------------------------------------------------------------------------------


def table_of(texts: list[str] | Vocabulary, count: int) -> FeatureTable:
    """A table whose lists run through the first ``count`` tokens of a vocabulary."""
    vocab = texts if isinstance(texts, Vocabulary) else Vocabulary.from_texts(texts)
    n = -(-count // 20)
    arrays = make.columns(n=n, v=200)
    for name in ("writes.top_ids", "writes.bottom_ids", "reads.top_ids", "writes.word_ids", "reads.word_ids"):
        wide = arrays[name].shape[1]
        arrays[name] = ((np.arange(n)[:, None] * 20 + np.arange(wide)) % count).astype(np.int32)
    return FeatureTable.from_arrays(arrays, vocab=vocab, nulls=NULLS, model=NAME, sae=NAME)


def drawn(table: FeatureTable, row: int, width: int) -> Iterator[tuple[int, Line]]:
    """(width, line) of everything that draws a feature's tokens."""
    for tokens in (False, True):
        look = Look(tokens=tokens, layer=1, layers=4)
        for lines in (card_lines(table, row, width, 50, look), page_lines(table, row, width, look)):
            yield from ((width, cut(line, width)) for line in lines)
    yield from ((width, cut(line, width)) for line in short_card(table, row, width, 11, Look()))
    cells = layout(("id", "kind", "writes", "reads", "against"), width, table.n)
    line = row_line(table, row, cells, cursor=False, marked=False)
    yield sum(cell_len(text) for text, _ in line), line
    halves = (Half(table, row, f"{NAME} #{row}"), Half(table, (row + 1) % table.n, f"{NAME} 東"))
    yield from ((width, cut(one, width)) for one in compare_lines(*halves, Between(), width, 40))


def sound(table: FeatureTable, row: int, width: int) -> None:
    for cells, line in drawn(table, row, width):
        text = text_of(line)
        assert not harm(text, lines=False), ascii(text)
        assert not misplaced(text, cells), ascii(text)


def test_every_token_of_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    from wbtui.sources.vocabulary import read_vocabulary

    demo = find_model("demo")
    vocab = Vocabulary(read_vocabulary(demo.path, demo.d_vocab))
    table = table_of(vocab, vocab.n)
    cells = layout(("id", "kind", "writes", "against"), 80, table.n)
    for row in range(table.n):
        line = row_line(table, row, cells, cursor=False, marked=False)
        assert not harm(text_of(line), lines=False) and not misplaced(text_of(line), 80), row
        for line in words_block(table, row, 60, 20, tokens=bool(row % 2)):
            text = text_of(cut(line, 60))
            assert not harm(text, lines=False) and not misplaced(text, 60), row
    for token in range(vocab.n):
        for text in (vocab.shown(token), vocab.word(token)):
            assert not harm(text, lines=False) and not misplaced(text, cell_len(text)), token


def test_every_token_of_the_list_at_every_width() -> None:
    table = table_of([*TOKENS, "\ud800", "\udcff", "a\ud800\udc00"], len(TOKENS) + 3)
    for row in range(table.n):
        for width in (24, 52, 57, 80, 118):
            sound(table, row, width)


@settings(max_examples=25)
@given(st.lists(hostile_text, min_size=20, max_size=20))
def test_any_token(texts: list[str]) -> None:
    sound(table_of(texts, 20), 0, 58)


@given(hostile_text)
def test_ascii_of_hostile_text(text: str) -> None:
    use_ascii(True)
    try:
        assert shown_text(safe_token_text(text)).isascii()
    finally:
        use_ascii(False)


@given(hostile_text)
def test_the_guard_alone_stops_what_others_draw(text: str) -> None:
    from rich.segment import Segment
    from textual.color import Color

    (found,) = Guard().apply([Segment(text)], Color(0, 0, 0))
    assert not harm(found.text, lines=False)
    assert cell_len(found.text) == cell_len(text)
