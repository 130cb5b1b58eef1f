"""From a tile of scores to the columns of ``wbtui.schema`` (methods 1.2): the formulas, whoever holds the scores.

A :class:`Tile` does what reads every score (sums, the largest ones, the softmax), in torch for a shard's tile
(:mod:`wbtui.analysis.tokens`) and in numpy for a lone feature's (:mod:`wbtui.analysis.lone`). Everything else is here,
once, on numbers that are few.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np

from wbtui.analysis import coherence
from wbtui.analysis.either import Stop, poll

Want = Literal["pos", "both"]
Rows = dict[str, np.ndarray]

SPARE = 28
"""Candidates beyond ``k_words``: spellings of words already seen. Rows that need more get more, exactly."""
FLAT = 4 * float(np.finfo(np.float32).eps)
"""A row whose spread is below this share of its largest score has no spread but rounding."""


class Table(Protocol):
    """What is known of a side's tokens: see :class:`wbtui.analysis.side.TokenTable`."""

    @property
    def token_ids(self) -> np.ndarray: ...
    @property
    def n_kept(self) -> int: ...
    @property
    def scale(self) -> float: ...
    @property
    def centre_values(self) -> bool: ...
    @property
    def word(self) -> Any: ...
    @property
    def whole_word(self) -> Any: ...
    @property
    def norms(self) -> coherence.Strings: ...
    @property
    def definition(self) -> Any: ...


class Tile(Protocol):
    """Rows of scores: ``n_kept`` columns of kept tokens in ascending id, then the masked ones."""

    rows: int
    n_masked: int

    def moments(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Population mean, std, skewness and (non-excess) kurtosis of the kept scores, fp64 ``[rows]`` each."""

    def settle(self, high: int, low: int, bar: int) -> None:
        """Make exact what lists of ``high`` and ``low`` entries, and the masked tokens above entry ``bar``, need."""

    def best(self, k: int, *, largest: bool) -> tuple[np.ndarray, np.ndarray]:
        """Values fp64 and columns ``[rows, min(k, n_kept)]``, best first, equal values by smaller column."""

    def more(self, row: int, k: int, *, largest: bool) -> tuple[np.ndarray, np.ndarray]:
        """:meth:`best` of one row: ``[1, …]``."""

    def entropies(
        self, signs: Sequence[tuple[np.ndarray, np.ndarray]], span: np.ndarray
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each (peak, rate) ``[rows]``: entropy and partition sum of ``softmax(rate * (x - peak))`` over the kept
        scores ``x``, fp64 ``[rows]``; ``span`` is how far their largest and smallest lie apart."""

    def above(self, bar: np.ndarray, bar_id: np.ndarray) -> np.ndarray:
        """Masked tokens that would stand above a kept one of this score and id: ``[rows]``."""

    def best_masked(self) -> tuple[np.ndarray, np.ndarray]:
        """Score (fp64) and id of the best masked token: ``[rows]``."""

    def mean_cosine(self, ids: np.ndarray) -> np.ndarray:
        """:func:`wbtui.analysis.coherence.mean_cosine` of tokens ``[rows, k]``."""

    def centred_norms(self, ids: np.ndarray) -> np.ndarray:
        """:func:`wbtui.analysis.coherence.centred_norms` of tokens ``[rows, k]``."""


def moments_of(about: Any, sums: Sequence[Any]) -> tuple[Any, Any, Any, Any]:
    """Mean, std, skewness, kurtosis from ``about`` and the means of the first four powers of ``x - about``: arrays of
    either library, fp64."""
    s1, s2, s3, s4 = sums
    variance = (s2 - s1**2).clip(0.0)
    skew = (s3 - 3 * s1 * s2 + 2 * s1**3) / variance**1.5
    kurt = (s4 - 4 * s1 * s3 + 6 * s1**2 * s2 - 3 * s1**4) / variance**2
    return about + s1, variance**0.5, skew, kurt


def longest(definition: Any) -> int:
    """The length of the list from which words are taken."""
    return int(max(definition.k_show, definition.k_sem, definition.k_words + SPARE))


def reduce(
    tile: Tile,
    side: Table,
    norm: np.ndarray,
    exponent: np.ndarray,
    lengths: np.ndarray | None,
    *,
    want: Want,
    top_cos: bool,
    stop: Stop | None = None,
) -> Rows:
    """All columns of one tile; rows that are absent hold numbers of no meaning.

    Args:
        tile, side: the scores and their tokens.
        norm, exponent: ``[rows]``, the directions' norms and the powers of two taken out of them
            (:func:`wbtui.analysis.directions.scaled`).
        lengths: ``[rows]`` to divide the values by; None divides by nothing.
        want: ``both`` adds the shape columns of ``-z`` under ``against.<name>``.
        top_cos: add the cosine of the direction with the centred row of each top token.
        stop: polled.
    """
    definition = side.definition
    rows, show = tile.rows, definition.k_show
    last = min(definition.k_sem, side.n_kept) - 1
    mean, std, skew, kurt = tile.moments()
    wanted = longest(definition)
    low = wanted if want == "both" else show
    tile.settle(wanted, low, last)
    top, bottom = tile.best(wanted, largest=True), tile.best(low, largest=False)
    highest, lowest = top[0][:, 0], bottom[0][:, 0]
    flat = ~(std > FLAT * np.maximum(abs(highest), abs(lowest)))
    spread = np.where(flat, np.nan, std)
    unit = np.ldexp(1.0, exponent) * side.scale
    if lengths is not None:
        unit = unit / lengths
    offset = mean if side.centre_values else np.zeros(rows)

    out: Rows = {}
    for name, (values, columns) in (("top", top), ("bottom", bottom)):
        ids = _pad(side.token_ids[columns[:, :show]], show, -1)
        out[f"{name}_ids"] = ids
        shown = _pad(values[:, :show], show, np.nan)
        out[f"{name}_values"] = np.where(ids >= 0, (shown - offset[:, None]) * unit[:, None], np.nan)
    out["mean"] = (mean - offset) * unit
    out["std"] = np.where(flat, 0.0, std) * unit
    out["skew"] = np.where(flat, np.nan, skew)
    out["kurt"] = np.where(flat, np.nan, kurt)
    out["z_min"] = (lowest - mean) / spread
    poll(stop)
    lists = [(+1.0, top)] if want == "pos" else [(+1.0, top), (-1.0, bottom)]
    wide = np.where(flat, np.inf, spread)
    signs = [(best[0][:, 0], sign * definition.kappa / wide) for sign, best in lists]
    softmaxes = tile.entropies(signs, highest - lowest)
    for (sign, best), softmax in zip(lists, softmaxes, strict=True):
        shape = _shape(tile, side, best, softmax, mean, spread, sign, stop)
        out |= shape if sign > 0 else {f"against.{name}": column for name, column in shape.items()}
    out |= _masked(tile, side, top, last, offset, unit)
    if top_cos:
        values, columns = top[0][:, :show], top[1][:, :show]
        sizes = tile.centred_norms(side.token_ids[columns])
        with np.errstate(divide="ignore", invalid="ignore"):
            cosine = (values - mean[:, None]) / (sizes * np.ldexp(norm, -exponent)[:, None])
        out["top_cos"] = _pad(np.where(sizes > 0, cosine, 0.0), show, np.nan)
    return out


def _pad(values: np.ndarray, width: int, fill: float) -> np.ndarray:
    """Columns filled up to ``width``: a vocabulary smaller than the list."""
    missing = width - values.shape[1]
    return values if missing <= 0 else np.pad(values, ((0, 0), (0, missing)), constant_values=fill)


def _shape(
    tile: Tile,
    side: Table,
    best: tuple[np.ndarray, np.ndarray],
    softmax: tuple[np.ndarray, np.ndarray],
    mean: np.ndarray,
    spread: np.ndarray,
    sign: float,
    stop: Stop | None,
) -> Rows:
    """The shape columns of ``sign * z``. ``best`` is the list of that sign, best first; ``softmax`` its entropy and
    partition sum."""
    definition = side.definition
    values, columns = best
    k = min(definition.k_sem, side.n_kept)
    flat = np.isnan(spread)
    z = sign * (values - mean[:, None]) / spread[:, None]
    entropy, total = softmax
    h = np.where(flat, np.nan, entropy)
    weights = np.exp(definition.kappa * (z[:, :k] - z[:, :1])) / total[:, None]
    ids = side.token_ids[columns[:, :k]]
    out: Rows = {
        "z_max": z[:, 0],
        "z_10": z[:, definition.k_sem - 1] if definition.k_sem <= side.n_kept else np.full(tile.rows, np.nan),
        "h_kappa": h,
        "delta_h": (math.log(side.n_kept) - definition.kappa**2 / 2) - h,
        "mass_1": weights[:, 0],
        "mass_10": weights.sum(1),
        "lev": np.where(flat, np.nan, coherence.levenshtein(ids, side.norms)),
        "cos_tok": np.where(flat, np.nan, tile.mean_cosine(ids)),
        "word_share": np.where(flat, np.nan, side.whole_word[ids].mean(1)),
    }
    poll(stop)
    out |= _words(tile, side, z, columns, mean, spread, sign, stop)
    return out


def _words(
    tile: Tile,
    side: Table,
    z: np.ndarray,
    columns: np.ndarray,
    mean: np.ndarray,
    spread: np.ndarray,
    sign: float,
    stop: Stop | None,
) -> Rows:
    """z and token of the k-th best distinct word. Rows whose candidates run out are searched with more, exactly."""
    k = side.definition.k_words
    ids = side.token_ids[columns]
    word_z, word_ids = np.full((len(mean), k), np.nan), np.full((len(mean), k), -1, dtype=np.int64)
    rows, candidates = np.arange(len(mean)), ids.shape[1]
    while True:
        places, count = coherence.distinct_words(ids, side.word, k)
        found = places >= 0
        word_z[rows] = np.where(found, np.take_along_axis(z, np.maximum(places, 0), axis=1), np.nan)
        word_ids[rows] = np.where(found, np.take_along_axis(ids, np.maximum(places, 0), axis=1), -1)
        short = rows[count < k]
        if not len(short) or candidates >= side.n_kept:  # enough, or all there are
            break
        poll(stop)
        rows, candidates = short, candidates * 4
        parts = [tile.more(int(row), candidates, largest=sign > 0) for row in rows]
        ids = np.concatenate([side.token_ids[found_columns] for _, found_columns in parts])
        values = np.concatenate([found_values for found_values, _ in parts])
        z = sign * (values - mean[rows, None]) / spread[rows, None]
    flat = np.isnan(spread)
    word_ids[flat] = -1
    return {"word_z": word_z, "word_ids": word_ids}


def _masked(
    tile: Tile, side: Table, top: tuple[np.ndarray, np.ndarray], last: int, offset: np.ndarray, unit: np.ndarray
) -> Rows:
    """The best masked token and how many stand above the tenth kept one (the last one where fewer are kept)."""
    if not tile.n_masked:
        return {
            "n_masked_above": np.zeros(tile.rows, dtype=np.int32),
            "masked_best_id": np.full(tile.rows, -1, dtype=np.int32),
            "masked_best_value": np.full(tile.rows, np.nan),
        }
    values, ids = tile.best_masked()
    return {
        "n_masked_above": tile.above(top[0][:, last], side.token_ids[top[1][:, last]]),
        "masked_best_id": ids,
        "masked_best_value": (values - offset) * unit,
    }
