"""Queries by direction as text."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wbtui.errors import UsageError
from wbtui.features.asking import NoToken, is_asked, near, parse, split_vector, tokens_of
from wbtui.features.vocabulary import Vocabulary

VOCAB = Vocabulary.from_texts(
    [" London", "London", " london", " Paris", " he", "he", " she", "phys", " physics", "<eos>", "a,b", "}"],
    flags=[0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0],
)


def words(text: str) -> list[tuple[str, bool, int]]:
    return [(w.text, w.exact, w.sign) for w in parse(text).words]


def test_words_sets_and_differences() -> None:
    assert words("w:London") == [("London", False, 1)]
    assert words('w:" London"') == [(" London", True, 1)]
    assert words("w:{London,Paris}") == [("London", False, 1), ("Paris", False, 1)]
    assert words('r:{" he"}-{" she"}') == [(" he", True, 1), (" she", True, -1)]
    assert words("w: London - Paris + {he , she}") == [
        ("London", False, 1), ("Paris", False, -1), ("he", False, 1), ("she", False, 1),
    ]  # fmt: skip
    assert words(r'w:{"a,b","}","\"x\"","\n"}') == [("a,b", True, 1), ("}", True, 1), ('"x"', True, 1), ("\n", True, 1)]
    assert parse("r:London").side == "reads" and parse("w:London").side == "writes"


def test_vectors_and_features() -> None:
    asked = parse("dir:./a b/probe.npy@L3.resid_post")
    assert (asked.kind, asked.path, asked.tensor, asked.position) == ("vector", "./a b/probe.npy", "", "L3.resid_post")
    assert split_vector("p.safetensors:x.y@L0.resid_pre") == ("p.safetensors", "x.y", "L0.resid_pre")
    assert split_vector("p.safetensors") == ("p.safetensors", "", "")
    assert parse("r:dir:v.npy").side == "reads" and parse("r:dir:v.npy").position == ""
    like = parse("like:demo@L3#120")
    assert like.kind == "like" and str(like.address) == "demo@L3#120"


@pytest.mark.parametrize(
    "text",
    ["", "London", "x:London", "w:", "w:{", "w:{}", "w:{a", "w:{a,}", 'w:"a', 'w:""', "w:a-", "w:-a", "w:a*b c}",
     "like:demo@L3", "dir:probe.pt", "dir:", "dir:v.npy:name", "w:{a}{b}", "w:" + "a+" * 300 + "a"],
)  # fmt: skip
def test_what_cannot_be_read_says_where(text: str) -> None:
    if text == "w:a*b c}":  # a word may hold anything but + - and blanks
        with pytest.raises(UsageError, match="character 5"):
            parse(text)
        return
    with pytest.raises(UsageError) as error:
        parse(text)
    assert error.value.expected


@given(st.text(max_size=30))
def test_any_text_is_a_query_or_a_usage_error(text: str) -> None:
    for prefix in ("", "w:", "r:", "dir:", "like:", "w:{"):
        try:
            parse(prefix + text)
        except UsageError:
            continue


def test_which_text_is_a_query() -> None:
    assert all(is_asked(text) for text in ("w:x", "r:x", "dir:v.npy", "like:demo@L3#1", " W: x", "r:dir:v.npy"))
    assert not any(is_asked(text) for text in ("writes:x", "reads:x", "re:x", "z_max>6", "", "work", "directory"))


def test_a_word_is_all_its_spellings_and_a_quoted_token_is_one() -> None:
    (london,) = tokens_of(parse("w:London"), VOCAB)
    assert london.ids == (0, 1, 2) and london.texts == (" London", "London", " london")
    assert tokens_of(parse('w:" London"'), VOCAB)[0].ids == (0,)
    assert tokens_of(parse('w:"a,b"'), VOCAB)[0].ids == (10,)


def test_a_word_without_a_token_is_told_what_there_is() -> None:
    with pytest.raises(NoToken, match="no single token spells the word 'physicist'") as error:
        tokens_of(parse("w:physicist"), VOCAB)
    assert '"phys"' in error.value.do and '" physics"' in error.value.do
    with pytest.raises(NoToken, match="token") as error:
        tokens_of(parse('w:"LONDON"'), VOCAB)
    assert '" London"' in error.value.do
    with pytest.raises(NoToken):
        tokens_of(parse("w:<eos>"), VOCAB)  # a control token is no word
    assert near(VOCAB, parse("w:zzzz").words[0]) == ""


def test_every_column_of_an_answer_is_explained() -> None:
    from wbtui.features.answers import EDGES, FIND, MEANINGS
    from wbtui.features.glossary_questions import questions_glossary

    assert {*FIND, *EDGES} <= MEANINGS.keys()
    names = [entry.name for entry in questions_glossary()]
    assert len(set(names)) == len(names) and {"score", "tail", "rank", "weight", "r", "flow class"} <= set(names)
    assert {"mutual", "matched", "lost, new", "split", "kept class", "assignment", "effective rank"} <= set(names)
    assert all(entry.meaning and entry.source for entry in questions_glossary())


@pytest.mark.parametrize(
    ("text", "side"), [("w:w:London", "writes"), ("w:r:London", "reads"), ("r: w: London", "writes")]
)
def test_a_side_typed_behind_the_bars_own_counts(text: str, side: str) -> None:
    asked = parse(text)
    assert (asked.side, [w.text for w in asked.words]) == (side, ["London"])
    assert [w.text for w in parse('w:"r:London"').words] == ["r:London"]
    assert asked.text.replace(" ", "") == f"{side[0]}:London", "one side is shown"
    assert parse(asked.text) == asked and parse('w:"w:w:x" ').text == 'w:"w:w:x"'


PIECES = (
    "w:", "r:", "dir:", "like:", "W:", " ", "  ", "\t", "\n", "{", "}", ",", "+", "-", '"', '\\"', "\\", "\\n", "\\x",
    "@", "#", "#12", "demo@L3#7", ":", "London", "Paris", " he", "phys", "a,b", "v.npy", "p.safetensors", ":x",
    "@L3.resid_post", "@L99.nowhere", "\x00", "\x1b[31m", "\u202e", "é", "e\u0301", "\U0001f600", "\ud800", "%40", "/",
    "..", "~", "0", "9" * 30,
)  # fmt: skip


def one_line(error: UsageError, text: str) -> None:
    line = error.line()
    assert "\n" not in line and "\x1b" not in line and len(line) < 800, (text, line)
    assert error.found and error.expected, text


def test_ten_thousand_texts_are_read_or_refused_in_one_line() -> None:
    """Pieces of the language and of what breaks languages, in any order: an answer or one line, and soon."""
    draw = random.Random(0)
    read = refused = spelled = 0
    began = time.process_time()
    for _ in range(10_000):
        text = draw.choice(PIECES[:5]) + "".join(draw.choices(PIECES, k=draw.randrange(12)))
        if draw.random() < 0.02:
            text *= draw.randrange(2, 400)
        try:
            asked = parse(text)
        except UsageError as error:
            refused += 1
            one_line(error, text)
            continue
        read += 1
        assert is_asked(text), text
        assert parse(asked.text) == asked, text
        if asked.kind == "tokens":
            assert asked.words and all(word.text for word in asked.words), text
            try:
                found = tokens_of(asked, VOCAB)
            except UsageError as error:
                one_line(error, text)
            else:
                spelled += 1
                assert all(word.ids for word in found), text
    assert read > 1000 and refused > 3000 and spelled > 50, (read, refused, spelled)
    assert time.process_time() - began < 20
