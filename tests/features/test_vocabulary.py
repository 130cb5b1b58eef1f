"""Token strings: exact, shown, found."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wbtui.errors import StoreError
from wbtui.features.vocabulary import Vocabulary

TEXTS = [
    "London",
    " London",
    " LONDON",
    "\n",
    "\x1b[2J",
    "",
    " ",
    "é",
    "E\u0301",
    " straße",
    "\\xe2",
    "\u202e",
    "a\xffb",
    "x" * 300,
]
VOCAB = Vocabulary.from_texts(TEXTS)


def test_texts_come_back_exactly_and_shown_ones_are_safe():
    assert VOCAB.texts(range(len(TEXTS))) == TEXTS
    assert VOCAB.shown(1) == " London"
    assert VOCAB.word(1) == "London"
    assert VOCAB.shown(3) == "⏎"
    for token in range(VOCAB.n):
        assert not re.search("[\x00-\x1f\x7f\u202e]", VOCAB.shown(token) + VOCAB.word(token))


def test_an_id_outside_is_named_not_invented():
    assert VOCAB.text(-1) == "#-1"
    assert VOCAB.shown(99) == "#99"
    assert VOCAB.raw(99) == b""
    assert not VOCAB.is_special(99)


def test_find_takes_every_spelling_of_a_word():
    assert VOCAB.find("london").tolist() == [0, 1, 2]
    assert VOCAB.find("STRASSE").tolist() == [9]
    assert VOCAB.find("é").tolist() == [7, 8]
    assert VOCAB.find("lond").tolist() == []
    assert VOCAB.find("").tolist() == []
    assert VOCAB.same_word(2).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("OND", [0, 1, 2]),
        (" lon", [1, 2]),
        ("strasse", [9]),
        ("ss", [9]),
        ("⏎", [3]),
        ("␛", [4]),
        ("\n", [3]),
        ("\\x", [10]),
    ],
)
def test_matching_by_hand(text, want):
    assert np.flatnonzero(VOCAB.matching(text)).tolist() == want


def test_matching_never_crosses_from_one_token_to_the_next():
    vocab = Vocabulary.from_texts(["ab", "cd", "", "bc"])
    assert np.flatnonzero(vocab.matching("bc")).tolist() == [3]


@given(st.lists(st.text(max_size=5), max_size=12), st.text(min_size=1, max_size=3))
@settings(max_examples=300, deadline=None)
def test_matching_equals_a_loop_over_any_strings(texts, needle):
    vocab = Vocabulary.from_texts(texts)
    drawn = re.search(r"[⏎⇥␍␀␛␡␣∅]|\\x|\\u\{", needle)
    want = [
        needle.casefold() in text.casefold() or bool(drawn and needle.casefold() in vocab.shown(i).casefold())
        for i, text in enumerate(texts)
    ]
    assert vocab.matching(needle).tolist() == want
    assert vocab.texts(range(len(texts))) == texts


def test_search_results_cannot_be_spoiled():
    hits = VOCAB.matching("london")
    with pytest.raises(ValueError):
        hits[0] = False


def test_ranks_are_alphabetical_and_equal_for_equal_words():
    ranks = VOCAB.ranks()
    assert ranks[0] == ranks[1] == ranks[2]
    assert ranks[7] > ranks[0] > ranks[3]


def test_damaged_columns_are_refused():
    columns = {
        "text_bytes": VOCAB._text, "text_offsets": VOCAB._text_at, "raw_bytes": VOCAB._raw,
        "raw_offsets": VOCAB._raw_at, "norm_bytes": VOCAB._norm, "norm_offsets": VOCAB._norm_at,
        "word": VOCAB.word_ids, "flags": VOCAB.flags,
    }  # fmt: skip
    assert Vocabulary(columns).n == VOCAB.n
    for name, bad in (
        ("text_offsets", VOCAB._text_at[:-1]),
        ("raw_offsets", VOCAB._raw_at[::-1].copy()),
        ("norm_bytes", VOCAB._norm[:-1]),
        ("word", VOCAB.word_ids[:-1]),
    ):
        with pytest.raises(StoreError):
            Vocabulary({**columns, name: bad})
    del columns["word"]
    with pytest.raises(StoreError, match="word"):
        Vocabulary(columns)
