"""The filter language: by hand, against a brute-force evaluator with three values, and under arbitrary input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.features import make
from wbtui.errors import UsageError
from wbtui.features import patterns
from wbtui.features.names import ALL_SIDES, BOTH_SIDES, ROW_FLAGS, SIDED_FLAGS
from wbtui.features.query import (
    All,
    And,
    Between,
    ClassIs,
    Compare,
    Flag,
    Ids,
    Not,
    Or,
    QueryError,
    Text,
    parse,
)
from wbtui.features.search import any_of

TABLE = make.table(n=90, bad=(5, 50))
# rows 80… are not computed
_ARRAYS = make.columns(90)
for _array in _ARRAYS.values():
    _array[80:] = np.nan if _array.dtype.kind == "f" else -1 if _array.dtype.kind == "i" else 0
PARTIAL = make.FeatureTable.from_arrays(
    _ARRAYS, vocab=make.vocabulary(), nulls=TABLE.thresholds.nulls, computed=np.arange(90) < 80
)


def rows(text, table=TABLE):
    return np.flatnonzero(parse(text).mask(table)).tolist()


# -- by hand -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("", All()),
        ("   ", All()),
        ("z_max>6", Compare("writes.z_max", ">", 6.0)),
        ("reads.z_max <= -1e-3", Compare("reads.z_max", "<=", -0.001)),
        ("z_max!=6", Compare("writes.z_max", "!=", 6.0)),
        ("z_max=4..6", Between("writes.z_max", 4.0, 6.0)),
        ("z_max=..6", Between("writes.z_max", -math.inf, 6.0)),
        ("z_max!=4..", Not(Between("writes.z_max", 4.0, math.inf))),
        ("semantic", Flag("semantic.writes")),
        ("reads.semantic", Flag("semantic.reads")),
        ("semantic.either", Flag("semantic.either")),
        ("semantic=no", Not(Flag("semantic.writes"))),
        ("!semantic", Not(Flag("semantic.writes"))),
        ("!!semantic", Flag("semantic.writes")),
        ("! semantic", Not(Flag("semantic.writes"))),
        ("class=set", ClassIs("writes.class", "=", "coherent")),
        ("kind!=none", ClassIs("writes.class", "!=", "none")),
        ("a b", And((Text("writes", "text", "a"), Text("writes", "text", "b")))),
        ("a|b c", Or((Text("writes", "text", "a"), And((Text("writes", "text", "b"), Text("writes", "text", "c")))))),
        ("(a|b) c", And((Or((Text("writes", "text", "a"), Text("writes", "text", "b"))), Text("writes", "text", "c")))),
        ("!(a b)", Not(And((Text("writes", "text", "a"), Text("writes", "text", "b"))))),
        ('"a \\"b\\\\"', Text("writes", "text", 'a "b\\')),
        ('reads:"x y"', Text("reads", "text", "x y")),
        ("against:x", Text("against", "text", "x")),
        ("token:Paris", Text("token", "text", "Paris")),
        ("re:^a(b|c)=$ d", And((Text("writes", "re", "^a(b|c)=$"), Text("writes", "text", "d")))),
        ('reads:re:"a b"', Text("reads", "re", "a b")),
        ("#12", Ids(((12, 12),))),
        ("id:1,5..9,20..", Ids(((1, 1), (5, 9), (20, None)))),
        ("id>=3", Compare("id", ">=", 3.0)),
        ("percentile:z_max>99", Compare("percentile:writes.z_max", ">", 99.0)),
        ("null:reads.lev<.01", Compare("null:reads.lev", "<", 0.01)),
        ("evidence>1", Compare("writes.evidence", ">", 1.0)),
        ("don't", Text("writes", "text", "don't")),
    ],
)
def test_trees(text, tree):
    assert parse(text).root == tree


@pytest.mark.parametrize(
    ("text", "position", "says"),
    [
        ("z_mx>3", 0, "z_max"),
        ("semantic z_mx>3", 9, "z_max"),
        ("evidnce>1", 0, "evidence"),
        ("z_max>", 6, "nothing to compare"),
        ("z_max>six", 6, "a number"),
        ("(a", 0, "without ')'"),
        ("a)", 1, "')'"),
        ("a |", 3, "the end"),
        ("| a", 0, "'|'"),
        ('"a', 0, "not closed"),
        ("!", 1, "the end"),
        ("()", 1, "')'"),
        ("z_max", 0, "z_max>0"),
        ("class", 0, "class=coherent"),
        ("class=sett", 6, "coherent"),
        ("class>none", 6, "="),
        ("semantic>3", 9, "semantic=yes"),
        ("wirtes:x", 0, "writes"),
        ("id:x", 3, "digits"),
        ("#5..3", 0, "backwards"),
        ("z_max=6..4", 6, "backwards"),
        ("writes.top_ids>3", 0, "a list"),
        ("re:(", 0, "regular expression"),
        ("re:(a+)+b", 0, "repeat"),
        ("re:", 3, "pattern"),
        ("writes:", 7, "text"),
        ("percentile:zz>3", 0, "percentile"),
        ("<eos>", 0, "quote"),
        ("=1", 0, "quote"),
        ("(" * 100 + "a" + ")" * 100, 60, "parentheses"),
        ("a" * 5000, 4000, "4000"),
    ],
)
def test_errors_say_where_and_what(text, position, says):
    with pytest.raises(QueryError) as caught:
        parse(text)
    assert caught.value.position == position
    assert says in caught.value.line()
    assert isinstance(caught.value, UsageError)


def test_text_matches_the_first_ten_written_tokens_only():
    ids = TABLE.column("writes.top_ids")
    want = [r for r in range(TABLE.n) if any("physicist" in TABLE.vocab.text(int(t)) for t in ids[r, :10] if t >= 0)]
    assert rows("PHYSICIST") == want
    beyond = [r for r in range(TABLE.n) if r not in want and 5 in ids[r, 10:]]
    assert beyond  # the word stands further down in other rows, and they do not match
    assert rows("reads:physicist") != want


def test_token_is_a_whole_word_in_any_spelling():
    ids = [set(TABLE.column(f"{side}.top_ids")[:, :10].flatten().tolist()) for side in ("writes", "reads")]
    assert ids
    spelled = {0, 1, 2}  # "Paris", " Paris", " paris"
    want = [
        r
        for r in range(TABLE.n)
        if spelled & {int(t) for side in ("writes", "reads") for t in TABLE.column(f"{side}.top_ids")[r, :10]}
    ]
    assert rows("token:paris") == want
    assert rows("token:pari") == []


def test_nothing_absent_matches_even_negated():
    for text in ("z_max>0", "semantic", "w1", "same", "class=none", "z_max=0..99", "reads:w1", "nonfinite"):
        assert not set(rows(text, PARTIAL)) & set(range(80, 90)), text
        assert not set(rows(f"!({text})", PARTIAL)) & set(range(80, 90)), text
    for text in ("z_max>0", "semantic", "w1", "same", "class=none"):
        assert not {5, 50} & set(rows(text)), text
        assert not {5, 50} & set(rows(f"!({text})")), text
    assert rows("nonfinite") == [5, 50]
    assert rows("computed", PARTIAL) == list(range(80))
    assert rows("!computed", PARTIAL) == list(range(80, 90))


def test_a_number_is_compared_in_the_columns_precision():
    """word_share 0.3 is stored as the nearest float32, which is not 0.3; asking for 0.3 must find it."""
    stored = TABLE.column("word_share")
    assert rows("word_share=0.3") == np.flatnonzero(stored == np.float32(0.3)).tolist() != []
    assert set(rows("word_share=0.3")) <= set(rows("word_share>=0.3")) & set(rows("word_share<=0.3"))
    assert rows("z_max<1e300") == rows("z_max>-1e300")
    assert rows("n_words>1e300") == []
    assert rows("n_words<2.5") == np.flatnonzero((TABLE.column("n_words") < 3) & TABLE.known("n_words")).tolist()


def test_ids_beyond_the_last_match_nothing():
    assert rows("#999999999999") == []
    assert rows("id:88..999") == [88, 89]
    assert rows("!id:1..") == [0]


def test_text_before_there_are_strings_says_so():
    table = make.FeatureTable.from_arrays(make.columns(5))
    with pytest.raises(QueryError, match="token strings"):
        parse("semantic x").mask(table)
    assert parse("z_max>0").mask(table).all()


def test_why_a_filter_is_empty_names_the_term():
    assert parse("semantic physcist").why_empty(TABLE) == 'no row has "physcist"; nearest: physicist'
    assert "runs from" in parse("semantic z_max>99").why_empty(TABLE)
    assert parse("z_max>99").why_empty(PARTIAL).startswith("no row has writes.z_max>99")


@pytest.mark.parametrize(
    "bad",
    [
        "(a+)+",
        "(ab|a)*c",
        "(a{2,9}){2,9}",
        "a*b*c*d*e",
        r"(a)\1",
        "(",
        "a{99999999999}",
        "*",
        "(?:(?:x*)y)+",
        "x" * 300,
    ],
)
def test_patterns_that_could_hang_are_refused(bad):
    with pytest.raises(UsageError):
        patterns.compiled(bad)


@pytest.mark.parametrize(
    "good", ["^phys", "ist$", "[a-z]+ed", "(cat|dog)s?", r"\d{4}", "a.*b", "(?-i:Paris)", "colou?r"]
)
def test_plain_patterns_pass(good):
    assert patterns.compiled(good).pattern == good


def test_regex_searches_shown_tokens():
    want = [
        r
        for r in range(TABLE.n)
        if {int(t) for t in TABLE.column("writes.top_ids")[r, :10]} & {0, 1, 2}  # Paris in three spellings
    ]
    assert rows("re:^.?paris$") == want
    assert set(rows("re:^.?(?-i:Paris)$")) < set(want)


# -- made by hypothesis ------------------------------------------------------------------------------------------------

NUMBERS = (
    "writes.z_max",
    "reads.cos_tok",
    "writes.n_words",
    "writes.evidence",
    "overlap",
    "id",
    "percentile:writes.lev",
)
numbers = st.one_of(
    st.integers(-3, 12).map(float), st.floats(-5, 20), st.floats(allow_nan=False, allow_infinity=False)
).map(lambda x: x + 0.0)
texts = st.text(min_size=1, max_size=6)
words = st.sampled_from(["w1", "Paris", "physi", "é", "\n", " NA", "=", 'a"b', "\\", "⏎", "(x", "a|b", "!"])
flags = st.one_of(
    st.builds("{}.{}".format, st.sampled_from(SIDED_FLAGS), st.sampled_from((*ALL_SIDES, *BOTH_SIDES))),
    st.sampled_from([flag for flag in ROW_FLAGS if flag != "dead"]),  # an error where no densities are imported
)
spans = st.integers(0, 100).flatmap(lambda a: st.tuples(st.just(a), st.one_of(st.none(), st.integers(a, 120))))
leaves = st.one_of(
    st.builds(Compare, st.sampled_from(NUMBERS), st.sampled_from(("=", "!=", "<", "<=", ">", ">=")), numbers),
    st.tuples(st.sampled_from(NUMBERS), numbers, numbers).map(lambda t: Between(t[0], min(t[1:]), max(t[1:]))),
    st.builds(Between, st.sampled_from(NUMBERS), st.just(-math.inf), numbers),
    st.builds(Flag, flags),
    st.builds(
        ClassIs,
        st.sampled_from([f"{s}.class" for s in ALL_SIDES]),
        st.sampled_from(("=", "!=")),
        st.sampled_from(("none", "single", "coherent", "diffuse")),
    ),
    st.builds(Ids, st.lists(spans, min_size=1, max_size=3).map(tuple)),
    st.builds(Text, st.sampled_from(("writes", "reads", "against", "token")), st.just("text"), texts | words),
    st.builds(
        Text, st.sampled_from(("writes", "reads")), st.just("re"), st.sampled_from(["^ w1", "s$", 'a"', "[a-p]"])
    ),
)


def _not(node):
    return node.part if isinstance(node, Not) else Not(node)


trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: And(tuple(parts))),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: Or(tuple(parts))),
        inner.map(_not),
    ),
    max_leaves=6,
)


@given(trees)
@settings(max_examples=300, deadline=None)
def test_formatting_parses_back(tree):
    text = str(tree)
    again = parse(text)
    assert again.root == tree
    assert str(again) == text


@given(st.one_of(st.text(), st.text(alphabet='abz_max ()|!"=<>:#.,\\re019+*[]{}\n', max_size=40)))
@settings(max_examples=600, deadline=None)
def test_any_text_parses_or_is_a_query_error(text):
    refusal = None
    try:
        query = parse(text)
    except QueryError as error:
        refusal = error
    if refusal is not None:
        assert 0 <= refusal.position <= len(text)
        assert refusal.found
        return
    assert parse(str(query)).root == query.root
    assert query.mask(TABLE).shape == (TABLE.n,)


OPS = {
    "=": lambda a, b: a == b, "!=": lambda a, b: a != b, "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
}  # fmt: skip


def cast(table, name, x):
    dtype = table.column(name).dtype
    with np.errstate(over="ignore"):
        return float(dtype.type(x)) if dtype.kind == "f" else x


def brute(node, table, row):
    """One row, one term at a time: True, False or None (unknown)."""
    if isinstance(node, All):
        return True
    if isinstance(node, Not):
        value = brute(node.part, table, row)
        return None if value is None else not value
    if isinstance(node, And | Or):
        values = [brute(part, table, row) for part in node.parts]
        decisive = isinstance(node, Or)
        return decisive if decisive in values else None if None in values else not decisive
    if isinstance(node, Ids):
        return any(low <= row and (high is None or row <= high) for low, high in node.spans)
    if isinstance(node, Compare | Between):
        if not table.known(node.name)[row]:
            return None
        value = float(table.column(node.name)[row])
        if isinstance(node, Compare):
            return OPS[node.op](value, cast(table, node.name, node.number))
        return cast(table, node.name, node.low) <= value <= cast(table, node.name, node.high)
    if isinstance(node, Flag):
        return bool(table.column(node.name)[row]) if table.known(node.name)[row] else None
    if isinstance(node, ClassIs):
        code = int(table.column(node.name)[row])
        if code < 0:
            return None
        return (("none", "single", "coherent", "diffuse")[code] == node.value) == (node.op == "=")
    return brute_text(node, table, row)


def brute_text(node, table, row):
    found, there = False, False
    for side in ("writes", "reads") if node.side == "token" else (node.side,):
        name = "writes.bottom_ids" if side == "against" else f"{side}.top_ids"
        tokens = [int(t) for t in table.column(name)[row][:10] if t >= 0]
        there |= bool(tokens)
        for token in tokens:
            text, shown = table.vocab.text(token), table.vocab.shown(token)
            if node.side == "token":
                found |= bool(node.text.lstrip(" ")) and token in table.vocab.find(node.text)
            elif node.how == "re":
                found |= patterns.compiled(node.text).search(text) is not None
            else:
                found |= node.text.casefold() in text.casefold()
                if any(c in node.text for c in "⏎⇥␍␀␛␡␣∅") or "\\x" in node.text or "\\u{" in node.text:
                    found |= node.text.casefold() in shown.casefold()
    return found if there else None


@given(trees)
@settings(max_examples=150, deadline=None)
def test_masks_equal_the_brute_force_evaluator(tree):
    for table in (TABLE, PARTIAL):
        want = [brute(tree, table, row) is True for row in range(table.n)]
        assert parse(str(tree)).mask(table).tolist() == want


@given(
    st.integers(1, 4),
    st.sampled_from([0, 1, 70, 2047, 2049, 4100]),
    st.sets(st.integers(0, 9)),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=200, deadline=None)
def test_rows_with_a_hit_equal_a_loop(k, n, hit, seed):
    """Few and many hits take different ways; -1 stands for an absent id, 10 for an impossible one."""
    ids = np.random.default_rng(seed).integers(-1, 11, (n, k + 2), dtype=np.int32)[:, :k]
    hits = np.zeros(10, dtype=bool)
    hits[list(hit)] = True
    assert any_of(hits, ids).tolist() == [bool(hit & set(row.tolist())) for row in ids]
