"""The columns of the E1 products: the contract between the analysis that writes them and everything that reads them.

Names are the metric names of filter, CSV, JSON and help: ``writes.z_max``, ``reads.cos_tok``. A null product has the
same columns on its ``writes`` and ``reads`` sides. ``n`` is the number of rows (features or random directions).
A row that is not finite has NaN in every float column, -1 in every id column.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SIDES = ("writes", "reads")

FLAG_BAD_DECODER = 1
FLAG_ZERO_DECODER = 2
FLAG_BAD_ENCODER = 4
FLAG_ZERO_ENCODER = 8
FLAG_NO_READS = 16
"""Bits of ``flags``: non-finite / zero decoder row, the same for the encoder column, encoder off the stream."""


@dataclass(frozen=True)
class Column:
    """One column: dtype, trailing shape (a field of :class:`wbtui.definitions.TokensDefinition`, or empty), meaning."""

    name: str
    dtype: str
    width: str
    meaning: str
    source: str = "methods 1.2"


_LIST = (
    Column("top_ids", "int32", "k_show", "token ids with the largest scores, kept tokens only, ties by id"),
    Column("top_values", "float32", "k_show", "their scores: logit per unit decoder (writes), token · encoder (reads)"),
    Column("bottom_ids", "int32", "k_show", "token ids with the smallest scores, smallest first"),
    Column("bottom_values", "float32", "k_show", "their scores"),
    Column("mean", "float32", "", "mean score over the kept tokens"),
    Column("std", "float32", "", "population standard deviation over the kept tokens"),
    Column("skew", "float32", "", "population skewness", "methods 2.5"),
    Column("kurt", "float32", "", "population kurtosis, non-excess (Gaussian = 3)", "methods 2.5"),
    Column("z_min", "float32", "", "smallest score in standard deviations from the mean"),
)
_SHAPE = (
    Column("z_max", "float32", "", "largest score in standard deviations from the mean (against: of -z)"),
    Column("z_10", "float32", "", "tenth largest score in standard deviations"),
    Column("h_kappa", "float32", "", "entropy (nats) of softmax(kappa * z) over the kept tokens"),
    Column("delta_h", "float32", "", "entropy deficit (ln V' - kappa^2 / 2) - h_kappa; Gaussian scores give 0"),
    Column("mass_1", "float32", "", "softmax(kappa * z) mass of the top token"),
    Column("mass_10", "float32", "", "softmax(kappa * z) mass of the top ten"),
    Column("lev", "float32", "", "mean normalised Levenshtein similarity of the top ten's strings"),
    Column(
        "cos_tok", "float32", "", "mean pairwise cosine of the top ten's token vectors, centred by the vocabulary mean"
    ),
    Column(
        "word_z", "float32", "k_words", "z of the k-th best distinct word (spellings by space, case, width are one)"
    ),
    Column("word_ids", "int32", "k_words", "the best-scoring token id of that word"),
    Column(
        "word_share", "float32", "", "share of the top ten tokens that are whole words (word start, letters, 3 or more)"
    ),
)
_MASKED = (
    Column("n_masked_above", "int32", "", "masked tokens that would have stood above the tenth kept one"),
    Column("masked_best_id", "int32", "", "the best masked token, -1 where none is masked"),
    Column("masked_best_value", "float32", "", "its score"),
)
_READS_ONLY = (
    Column(
        "top_cos",
        "float32",
        "k_show",
        "cosine of the encoder with the centred token row of each top token",
        "methods 2.4",
    ),
)
_COMMON = (
    Column("d_norm", "float32", "", "norm of the decoder row, mapped into the residual stream"),
    Column("e_norm", "float32", "", "norm of the encoder column on the raw residual stream"),
    Column("selfcos", "float32", "", "cosine of encoder column and decoder row", "methods 2.9"),
    Column("overlap", "int8", "", "tokens that the top tens of writes and reads share"),
    Column("flags", "uint8", "", "bit field: non-finite or zero decoder row, encoder column; encoder off the stream"),
)


def side_columns(side: str) -> tuple[Column, ...]:
    """Columns of one side, without the prefix. ``against`` is the negative sign of writes: only shape columns."""
    if side == "writes":
        return (*_LIST, *_SHAPE, *_MASKED)
    if side == "reads":
        return (*_LIST, *_SHAPE, *_MASKED, *_READS_ONLY)
    if side == "against":
        return _SHAPE
    raise ValueError(side)


def tokens_columns() -> dict[str, Column]:
    """Every column of a ``tokens`` product by full name."""
    out = {f"{side}.{c.name}": c for side in ("writes", "against", "reads") for c in side_columns(side)}
    out.update({c.name: c for c in _COMMON})
    return out


def null_columns() -> dict[str, Column]:
    """Every column of a ``null`` product: both sides of random directions (``against`` equals writes by symmetry)."""
    return {f"{side}.{c.name}": c for side in SIDES for c in side_columns(side)}


def width_of(column: Column, definition: dict[str, object]) -> tuple[int, ...]:
    """The trailing shape of a column under a definition (as JSON data)."""
    return (int(str(definition[column.width])),) if column.width else ()


def empty(column: Column, n: int, definition: dict[str, object]) -> np.ndarray:
    """An array of ``n`` absent rows: NaN, -1 or 0."""
    fill = {"f": np.nan, "i": -1, "u": 0}[np.dtype(column.dtype).kind]
    return np.full((n, *width_of(column, definition)), fill, dtype=column.dtype)


# Vocabulary products (not row-aligned): token strings for everyone who has no tokenizer.
VOCAB_SPECIAL = 1
VOCAB_PADDED = 2
VOCAB_WHOLE_WORD = 4
VOCAB_PARTIAL_BYTES = 8
VOCAB_LEADING_SPACE = 16
"""Bits of the vocabulary's ``flags`` column."""
