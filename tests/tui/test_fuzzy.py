"""Fuzzy matching against every way there is of matching, one letter at a time."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wbtui.catalog.registry import releases
from wbtui.tui.fuzzy import CHANGE, END, GAP, HIT, NEXT, START, Fuzzy


def kind(char: str) -> str:
    return "digit" if "0" <= char <= "9" else "letter" if char.isalpha() else "break"


def worth(name: str, places: tuple[int, ...]) -> int:
    """What a way of matching a word counts, from the definition."""
    total = 0
    for n, at in enumerate(places):
        here = kind(name[at])
        before = kind(name[at - 1]) if at else "break"
        after = kind(name[at + 1]) if at + 1 < len(name) else "break"
        end = END if here != "break" and after == "break" else 0
        total += HIT + end
        if n and at == places[n - 1] + 1:
            total += NEXT
        else:
            total += 0 if here == "break" else START if before == "break" else CHANGE * (before != here)
            total -= GAP * (at - places[n - 1] - 1) if n else 0
    return total


def best(name: str, word: str) -> int | None:
    low = name.lower()
    ways = [
        p
        for p in itertools.combinations(range(len(name)), len(word))
        if all(low[a] == c for a, c in zip(p, word, strict=True))
    ]
    return max((worth(low, p) for p in ways), default=None)


letters = st.text(alphabet="aAbL1/_2", max_size=9)
words = st.lists(st.text(alphabet="abl12/", min_size=1, max_size=4), min_size=1, max_size=2)


@given(st.lists(st.tuples(letters, st.integers(0, 1)), min_size=1, max_size=6), words)
def test_the_best_way_of_every_name_in_order(items: list[tuple[str, int]], asked: list[str]) -> None:
    names, groups = [name for name, _ in items], [group for _, group in items]
    asked = list(dict.fromkeys(asked))
    found = Fuzzy(names, groups).find(" ".join(asked))
    scores = {}
    for row, name in enumerate(names):
        each = [best(name, word) for word in asked]
        if all(score is not None and score > 0 for score in each):
            scores[row] = sum(score for score in each if score is not None)
    want = sorted(scores, key=lambda row: (groups[row], -scores[row], row))
    assert found.rows.tolist() == want
    assert found.scores.tolist() == [scores[row] for row in want]


@given(st.lists(letters, min_size=1, max_size=5), st.text(alphabet="abl12/", min_size=1, max_size=4))
def test_the_places_shown_are_of_a_best_way(names: list[str], word: str) -> None:
    fuzzy = Fuzzy(names)
    found = fuzzy.find(word)
    for row, name in enumerate(names):
        places = tuple(sorted(fuzzy.places(row, word)))
        if row in found.rows:
            assert "".join(name[at].lower() for at in places) == word
            assert worth(name.lower(), places) == best(name, word)
        else:
            assert places == ()


@given(st.lists(st.text(max_size=6), max_size=5), st.text(max_size=6))
def test_any_text(names: list[str], query: str) -> None:
    fuzzy = Fuzzy(names)
    for k in range(len(query) + 1):  # typed letter by letter, then as a whole
        typed = fuzzy.find(query[:k]).rows.tolist()
    assert typed == Fuzzy(names).find(query).rows.tolist()
    for row in typed:
        assert all(at < len(names[row]) for at in fuzzy.places(row, query))


def test_a_whole_part_comes_before_a_longer_one() -> None:
    names = ["L20", "L12 x", "L2 gemma/layer_2", "l0_20"]
    fuzzy = Fuzzy(names)
    assert names[fuzzy.find("l2").rows[0]] == "L2 gemma/layer_2"
    assert names[fuzzy.find("l20").rows[0]] == "L20"


def test_what_people_type_finds_what_they_mean() -> None:
    entries = [entry for release in releases() for entry in release.saes]
    fuzzy = Fuzzy([f"{entry.model}@{entry.name}" for entry in entries])

    def first(query: str, n: int = 3) -> list[str]:
        return [entries[row].name for row in fuzzy.find(query).rows[:n]]

    wanted = "gemma-scope-2b-pt-res-canonical/layer_12/width_16k/canonical"
    assert wanted in first("g2 2b res canon 12 16k")
    assert "gpt2-small-res-jb/blocks.8.hook_resid_pre" in first("gpt2 jb 8")
    assert first("llamalxr8x l5r")[0].endswith("l5r_8x")
    assert fuzzy.find("zzzzqq").rows.tolist() == []
    assert np.array_equal(fuzzy.find("").rows, np.arange(len(entries)))
