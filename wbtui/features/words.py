"""One row in words: its best distinct words, and the sentence at the top of its card."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wbtui import schema
from wbtui.features import classes

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable

NO_SIGNAL = "NO CLEAR WEIGHT-BASED SIGNAL"


@dataclass(frozen=True)
class Word:
    """One distinct word of a row.

    Attributes:
        text: safe to print, without a leading space; ``#id`` while there are no token strings.
        id: its best-scoring token.
        value: that token's score.
        z: in standard deviations (``against``: of -z, so positive).
        count: spellings of the word among the shown top tokens (``London³``), at least 1.
        inside_null: not among the words beyond noise.
    """

    text: str
    id: int
    value: float
    z: float
    count: int
    inside_null: bool


def word_list(table: FeatureTable, row: int, side: str, k: int) -> list[Word]:
    """See :meth:`FeatureTable.words`."""
    every = np.asarray(table.cell(f"{side}.word_z", row))
    z = every[:k].astype(np.float64).tolist()
    ids = table.cell(f"{side}.word_ids", row)[:k].tolist()
    base, listed = ("writes", "bottom") if side == "against" else (side, "top")
    shown = table.cell(f"{base}.{listed}_ids", row).tolist()
    values = table.cell(f"{base}.{listed}_values", row).tolist()
    mean, std = float(table.cell(f"{base}.mean", row)), float(table.cell(f"{base}.std", row))
    sign = -1.0 if side == "against" else 1.0
    beyond = beyond_of(every, table.thresholds.side(side).word_z)
    by_id = {token: value for token, value in zip(shown, values, strict=True) if token >= 0}
    counts: dict[int, int] = {}
    vocab = table.vocab
    if vocab is not None:
        for token in by_id:
            if token < vocab.n:
                word = int(vocab.word_ids[token])
                counts[word] = counts.get(word, 0) + 1
    out = []
    for rank, (token, score) in enumerate(zip(ids, z, strict=True)):
        if token < 0 or not math.isfinite(score):
            break
        count = 1
        if vocab is not None and token < vocab.n:
            count = max(1, counts.get(int(vocab.word_ids[token]), 1))
        out.append(
            Word(
                text=vocab.word(token) if vocab is not None else f"#{token}",
                id=token,
                value=by_id.get(token, mean + sign * score * std),
                z=score,
                count=count,
                inside_null=rank >= beyond,
            )
        )
    return out


def beyond_of(word_z: np.ndarray, bars: np.ndarray) -> int:
    """:func:`wbtui.features.classes.words_beyond` of one row."""
    pairs = zip(word_z.tolist(), bars.tolist(), strict=False)  # float32 and float64 compared exactly
    return max((rank for rank, (score, bar) in enumerate(pairs, 1) if score > bar), default=0)


def count_text(table: FeatureTable, row: int, side: str = "writes") -> str:
    """Words beyond noise as shown: ``9``, or ``20+`` where the whole stored profile is beyond; empty for none."""
    words = int(table.at(f"{side}.n_words", row))
    if words >= len(table.thresholds.side(side).word_z):
        return f"{words}+"
    return str(words) if words else ""


def kind(table: FeatureTable, row: int, side: str = "writes") -> str:
    """See :meth:`FeatureTable.kind`."""
    code = int(table.at(f"{side}.class", row))
    if code == classes.UNKNOWN:
        return ""
    name = classes.SHOWN_NAMES[code]
    if code in (classes.NONE, classes.SINGLE):
        return name
    count = count_text(table, row, side)
    return f"{name} {count}" if count else name


def sentence(table: FeatureTable, row: int) -> str:
    """See :meth:`FeatureTable.sentence`."""
    if not table.available[row]:
        return "NOT COMPUTED YET"
    flags = int(table.cell("flags", row))
    if flags & schema.FLAG_BAD_DECODER:
        return "ITS WEIGHTS ARE NOT FINITE"
    if flags & schema.FLAG_ZERO_DECODER:
        return "ITS DECODER ROW IS ZERO"
    code = int(table.at("writes.class", row))
    if code == classes.UNKNOWN:
        return "NO NULL YET: CLASS UNKNOWN"
    if code == classes.NONE:
        return NO_SIGNAL if table.at("unclear.writes", row) else "NO WORD BEYOND NOISE"
    if code == classes.SINGLE:
        return "ONE WORD"
    count = count_text(table, row)
    if code == classes.COHERENT:
        return f"SET OF {count} WORDS" if count not in ("", "1") else "SET OF WORDS"
    return f"MIX OF {count}" if count not in ("", "1") else "MIX OF WORDS"
