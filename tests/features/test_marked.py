"""What features have in common, against counts by hand and scipy's hypergeometric tail."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import hypergeom

from tests.features import make
from wbtui.features.head_shelf import HeadShelf
from wbtui.features.marked import _tail, chain, shared_heads, shared_words
from wbtui.features.table import FeatureTable


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
    found = shared_words(table, rows, side)
    assert found is not None
    want = by_hand(table, rows, side)
    assert found.total == len(want) > 3
    assert {frozenset(w.features) for w in found.words} == {frozenset(m) for m in want.values()}
    assert [w.count for w in found.words] == sorted((len(m) for m in want.values()), reverse=True)
    everyone = by_hand(table, list(range(120)), side)
    bases = sorted(round(w.base * 120) for w in found.words)
    assert bases == sorted(len(everyone[word]) for word in want)
    again = shared_words(table, rows, side)
    assert again == found, "draws are seeded"


def test_random_features_share_what_the_figure_says() -> None:
    table = make.table(n=300)
    generator = np.random.default_rng(7)
    draws = [generator.choice(300, 9, replace=False).tolist() for _ in range(400)]
    counts = [len(by_hand(table, rows, "writes")) for rows in draws]
    found = shared_words(table, draws[0])
    assert found is not None
    error = np.std(counts) * np.sqrt(1 / 100 + 1 / 400)
    assert abs(np.mean(counts) - found.random) < 4 * error
    assert np.mean(counts) > 0.5
    assert np.mean([c <= found.random_p99 for c in counts]) > 0.93


def test_without_nulls_nothing_is_beyond_noise() -> None:
    bare = FeatureTable.from_arrays(make.columns(30), vocab=make.vocabulary())
    assert shared_words(bare, [0, 3]) is None


@pytest.mark.parametrize(("count", "n", "k", "drawn"), [(1, 50, 5, 4), (4, 50, 5, 4), (3, 1000, 30, 12), (2, 9, 9, 2)])
def test_the_tail_is_hypergeometric(count: int, n: int, k: int, drawn: int) -> None:
    assert _tail(count, n, k, drawn) == pytest.approx(hypergeom.sf(count - 1, n, k, drawn), rel=1e-9)


def test_shared_heads_say_why_there_are_none() -> None:
    table = make.table(n=30)
    assert shared_heads(table, [1, 2]) == ([], "no model at hand")
    table.heads = HeadShelf.of({})
    table.heads.absent = "no head reads the last layer"
    assert shared_heads(table, [1, 2])[1] == "no head reads the last layer"


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
    found, why = shared_heads(table, [1, 2, 3, 5, 6])
    assert why == ""
    assert len(found) == 1
    only = found[0]
    assert (only.layer, only.head, only.side, only.count) == (4, 0, "key", 3)
    assert only.base == pytest.approx(4 / 99)
    assert only.tail == pytest.approx(hypergeom.sf(2, 99, 4, 4))


def test_the_chain_puts_like_beside_like() -> None:
    cosines = np.eye(4)
    cosines[0, 2] = cosines[2, 0] = 0.9
    cosines[1, 3] = cosines[3, 1] = 0.8
    order = chain(cosines)
    assert sorted(order) == [0, 1, 2, 3]
    assert abs(order.index(0) - order.index(2)) == 1
    assert abs(order.index(1) - order.index(3)) == 1
    assert chain(np.zeros((0, 0))) == []
