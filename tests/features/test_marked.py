"""What features have in common, against counts by hand and scipy's hypergeometric tail."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import hypergeom

from tests.features import make
from wbtui.features.head_shelf import HeadShelf
from wbtui.features.marked import Part, _tail, chain, labels, shared_heads, shared_words
from wbtui.features.table import FeatureTable


def one(table: FeatureTable, rows: list[int]) -> list[Part]:
    """A set of one SAE."""
    return [Part(table, tuple(rows))]


def by_hand(table: FeatureTable, rows: list[int], side: str) -> dict[str, set[int]]:
    """Word -> features that have it beyond noise, through the words that the card shows."""
    out: dict[str, set[int]] = {}
    for row in rows:
        count = int(table.column(f"{side}.n_words")[row])
        for token in table.cell(f"{side}.word_ids", row)[:count].tolist():
            assert table.vocab is not None
            out.setdefault(str(int(table.vocab.word_ids[token])), set()).add(row)
    return {word: members for word, members in out.items() if len(members) > 1}


@pytest.mark.parametrize("side", ["writes", "reads"])
def test_shared_words_are_the_words_beyond_noise_of_two_or_more(side: str) -> None:
    table = make.table(n=120)
    rows = [row for row in range(120) if table.column(f"{side}.n_words")[row] > 1][:12]
    found = shared_words(one(table, rows), side)
    assert found is not None
    want = by_hand(table, rows, side)
    assert found.total == len(want) > 3
    assert {frozenset(w.features) for w in found.words} == {frozenset(f"#{f}" for f in m) for m in want.values()}
    assert [w.count for w in found.words] == sorted((len(m) for m in want.values()), reverse=True)
    everyone = by_hand(table, list(range(120)), side)
    bases = sorted(round(w.base * 120) for w in found.words)
    assert bases == sorted(len(everyone[word]) for word in want)
    again = shared_words(one(table, rows), side)
    assert again == found, "draws are seeded"


def test_random_features_share_what_the_figure_says() -> None:
    table = make.table(n=300)
    generator = np.random.default_rng(7)
    draws = [generator.choice(300, 9, replace=False).tolist() for _ in range(400)]
    counts = [len(by_hand(table, rows, "writes")) for rows in draws]
    found = shared_words(one(table, draws[0]))
    assert found is not None
    error = np.std(counts) * np.sqrt(1 / 100 + 1 / 400)
    assert abs(np.mean(counts) - found.random) < 4 * error
    assert np.mean(counts) > 0.5
    assert np.mean([c <= found.random_p99 for c in counts]) > 0.93


def test_without_nulls_nothing_is_beyond_noise() -> None:
    bare = FeatureTable.from_arrays(make.columns(30), vocab=make.vocabulary())
    assert shared_words(one(bare, [0, 3])) is None


@pytest.mark.parametrize(("count", "n", "k", "drawn"), [(1, 50, 5, 4), (4, 50, 5, 4), (3, 1000, 30, 12), (2, 9, 9, 2)])
def test_the_tail_is_hypergeometric(count: int, n: int, k: int, drawn: int) -> None:
    assert _tail(count, [(n, k, drawn)]) == pytest.approx(hypergeom.sf(count - 1, n, k, drawn), rel=1e-9)


def test_shared_heads_say_why_there_are_none() -> None:
    table = make.table(n=30)
    assert shared_heads(one(table, [1, 2])) == ([], "no model at hand")
    table.heads = HeadShelf.of({})
    table.heads.absent = "no head reads the last layer"
    assert shared_heads(one(table, [1, 2]))[1] == "no head reads the last layer"


def test_shared_heads_count_what_stands_above_the_noise() -> None:
    table = make.table(n=100)
    ratios = np.zeros(100)
    ratios[[1, 2, 3, 40]] = 2.0
    ratios[5] = np.nan

    class Heads:
        layer, n_heads, ready = 4, 1, True

        def refresh(self) -> bool:
            return False

        def head(self, head: int, side: str, statistic: str) -> np.ndarray:
            return ratios if side == "key" else np.zeros(100)

    shelf = HeadShelf.of({4: Heads()})  # type: ignore[dict-item]
    table.heads = shelf
    found, why = shared_heads(one(table, [1, 2, 3, 5, 6]))
    assert why == ""
    assert len(found) == 1
    only = found[0]
    assert (only.layer, only.head, only.side, only.count) == (4, 0, "key", 3)
    assert only.base == pytest.approx(4 / 99)
    assert only.tail == pytest.approx(hypergeom.sf(2, 99, 4, 4))


def test_words_over_several_saes_are_counted_by_hand_and_name_the_sae() -> None:
    a, b = make.table(n=120), make.table(n=90, seed=5)
    bare = FeatureTable.from_arrays(make.columns(30), vocab=make.vocabulary())
    rows = [[r for r in range(t.n) if t.column("writes.n_words")[r] > 1][:5] for t in (a, b)]
    parts = [Part(a, tuple(rows[0]), "A", "A"), Part(b, tuple(rows[1]), "B", "B"), Part(bare, (1, 2), "C", "C")]
    found = shared_words(parts)
    assert found is not None
    held: dict[str, set[str]] = {}
    for part, some in zip(parts, rows, strict=False):
        table = part.table
        assert table.vocab is not None
        for row in some:
            for token in table.cell("writes.word_ids", row)[: int(table.column("writes.n_words")[row])].tolist():
                held.setdefault(str(int(table.vocab.word_ids[token])), set()).add(f"{part.label}#{row}")
    want = {frozenset(m) for m in held.values() if len(m) > 1}
    assert found.total == len([m for m in held.values() if len(m) > 1]) <= 40
    assert {frozenset(w.features) for w in found.words} == want
    assert any(len({name[0] for name in w.features}) == 2 for w in found.words), "a word of both SAEs"
    assert found.without == 2
    assert 0 < found.random <= found.random_p99
    assert all(0 < w.base <= 1 for w in found.words)


@pytest.mark.parametrize("seed", range(3))
def test_the_tail_over_several_saes_is_that_of_their_sum(seed: int) -> None:
    rng = np.random.default_rng(seed)
    draws = [(50, 5, 4), (200, 30, 7), (9, 9, 2)]
    sums = sum(hypergeom.rvs(n, k, drawn, size=200_000, random_state=rng) for n, k, drawn in draws)
    for count in range(2, 9):
        share = float((sums >= count).mean())
        assert _tail(count, draws) == pytest.approx(share, abs=5 * (share / 200_000) ** 0.5 + 1e-5)


def test_heads_of_one_layer_are_counted_together_and_others_beside_them() -> None:
    class Heads:
        n_heads, ready = 1, True

        def __init__(self, layer: int, seen: list[int]) -> None:
            self.layer, self.ratios = layer, np.zeros(100)
            self.ratios[seen] = 2.0

        def refresh(self) -> bool:
            return False

        def head(self, head: int, side: str, statistic: str) -> np.ndarray:
            return self.ratios if side == "key" else np.zeros(100)

    parts = []
    for label, layer, seen, rows in (("A", 4, [1, 2], (1, 2, 3)), ("B", 4, [7], (7,)), ("C", 5, [9], (9, 8))):
        table = make.table(n=100)
        table.heads = HeadShelf.of({layer: Heads(layer, seen)})  # type: ignore[dict-item]
        parts.append(Part(table, rows, label, label))
    last = make.table(n=100)
    last.heads = HeadShelf.of({})
    last.heads.absent = "no head reads the last layer"
    found, why = shared_heads([*parts, Part(last, (0,), "D", "D")])
    assert why == "D: no head reads the last layer"
    assert [(h.layer, h.side, h.count, h.of) for h in found] == [(4, "key", 3, 4), (5, "key", 1, 2)]
    both = hypergeom.pmf(2, 100, 2, 3) * hypergeom.pmf(1, 100, 1, 1)
    assert found[0].tail == pytest.approx(both)
    assert found[0].base == pytest.approx(3 / 200)
    none, why = shared_heads([Part(parts[0].table, (50,), "A", "A"), Part(last, (0,), "D", "D")])
    assert none == []
    assert why == "no head sees any of the others above the noise · D: no head reads the last layer"


def test_labels_are_short_and_differ() -> None:
    assert labels([("whatever/layer_1", 1)]) == [""]
    assert labels([("L3", 3), ("L3-seed2", 3)]) == ["L3", "L3-seed2"]
    long = [("release/layer_3/width_16k", 3), ("release/layer_3/width_65k", 3), ("release/layer_4/width_16k", 4)]
    assert labels(long) == ["L3", "L3a", "L4"]
    assert labels([("L3", 3), *long[:1]]) == ["L3", "L3a"]


def test_the_chain_puts_like_beside_like() -> None:
    cosines = np.eye(4)
    cosines[0, 2] = cosines[2, 0] = 0.9
    cosines[1, 3] = cosines[3, 1] = 0.8
    order = chain(cosines)
    assert sorted(order) == [0, 1, 2, 3]
    assert abs(order.index(0) - order.index(2)) == 1
    assert abs(order.index(1) - order.index(3)) == 1
    assert chain(np.zeros((0, 0))) == []
