"""Tables of invented rows that obey the schema: scores are drawn, and every list and moment follows from them."""

from __future__ import annotations

import functools

import numpy as np

from wbtui.features.noise import NullSample
from wbtui.features.table import FeatureTable
from wbtui.features.vocabulary import Vocabulary
from wbtui.schema import null_columns, tokens_columns

DEFINITION = {"k_show": 25, "k_words": 20}

WORDS = [
    "Paris",
    " Paris",
    " paris",
    "London",
    " London",
    " physicist",
    " chemist",
    " poet",
    "\n",
    "=SUM(1)",
    " NA",
    "é",
]


def vocabulary(n: int = 200) -> Vocabulary:
    """``n`` tokens, the first of them of every awkward kind, some spellings of one word."""
    texts = (WORDS + [f" w{i}" for i in range(n)])[:n]
    return Vocabulary.from_texts(texts)


def side(rng: np.random.Generator, n: int, v: int, lift: np.ndarray | float = 0.0) -> dict[str, np.ndarray]:
    """All columns of one side (with ``top_cos``), by bare name; ``lift`` raises the best twelve scores of a row."""
    scores = rng.standard_normal((n, v))
    for row, amount in enumerate(np.broadcast_to(lift, n)):
        scores[row, rng.choice(v, 12, replace=False)] += amount
    mean, std = scores.mean(1), scores.std(1)
    z = (scores - mean[:, None]) / std[:, None]
    down, up = np.argsort(-scores, axis=1, kind="stable"), np.argsort(scores, axis=1, kind="stable")
    best = np.take_along_axis(z, down, 1)
    weights = np.exp(2 * z - (2 * z).max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    entropy = -(weights * np.log(np.maximum(weights, 1e-300))).sum(1)
    return {
        "top_ids": down[:, :25],
        "top_values": np.take_along_axis(scores, down, 1)[:, :25],
        "bottom_ids": up[:, :25],
        "bottom_values": np.take_along_axis(scores, up, 1)[:, :25],
        "mean": mean,
        "std": std,
        "skew": (z**3).mean(1),
        "kurt": (z**4).mean(1),
        "z_min": z.min(1),
        "z_max": z.max(1),
        "z_10": best[:, 9],
        "h_kappa": entropy,
        "delta_h": np.log(v) - 2 - entropy,
        "mass_1": weights.max(1),
        "mass_10": np.sort(weights, 1)[:, -10:].sum(1),
        "lev": rng.beta(2, 8, n) + 0.1 * np.minimum(np.broadcast_to(lift, n), 3),
        "cos_tok": rng.normal(0.2, 0.1, n) + 0.1 * np.minimum(np.broadcast_to(lift, n), 3),
        "word_z": best[:, :20],
        "word_ids": down[:, :20],
        "word_share": rng.integers(0, 11, n) / 10,
        "n_masked_above": rng.integers(0, 3, n),
        "masked_best_id": rng.integers(-1, v, n),
        "masked_best_value": rng.standard_normal(n),
        "top_cos": rng.random((n, 25)),
    }


def _typed(raw: dict[str, np.ndarray], columns: dict) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(raw[name]).astype(columns[name].dtype) for name in columns}


def columns(n: int = 120, v: int = 200, seed: int = 0, bad: tuple[int, ...] = ()) -> dict[str, np.ndarray]:
    """A tokens product; a third of the rows stand above noise. ``bad`` rows are not finite. The arrays are the
    caller's own."""
    out = {name: array.copy() for name, array in _columns(n, v, seed).items()}
    for row in bad:
        for array in out.values():
            array[row] = np.nan if array.dtype.kind == "f" else -1 if array.dtype.kind == "i" else 1
    return out


@functools.lru_cache(maxsize=32)
def _columns(n: int, v: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    lift = np.where(np.arange(n) % 3 == 0, rng.uniform(0, 6, n), 0)
    raw = {f"writes.{k}": a for k, a in side(rng, n, v, lift).items()}
    raw |= {f"against.{k}": a for k, a in side(rng, n, v).items()}
    raw |= {f"reads.{k}": a for k, a in side(rng, n, v, lift[::-1]).items()}
    raw["reads.top_ids"][::7, 0] = raw["writes.top_ids"][::7, 0]
    raw |= {"d_norm": rng.random(n) + 1, "e_norm": rng.random(n) + 1, "selfcos": rng.random(n)}
    raw |= {"overlap": rng.integers(0, 11, n), "flags": np.zeros(n)}
    return _typed(raw, tokens_columns())


def null(kind: str = "isotropic", seed: int = 0, n: int = 300, v: int = 200) -> NullSample:
    """Random rows without lift; the arrays are everybody's and cannot be written."""
    return NullSample(kind, seed, dict(_null(1000 + seed + len(kind), n, v)))


@functools.lru_cache(maxsize=32)
def _null(seed: int, n: int, v: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    raw = {f"{s}.{k}": a for s in ("writes", "reads") for k, a in side(rng, n, v).items()}
    out = _typed(raw, null_columns())
    for array in out.values():
        array.flags.writeable = False
    return out


def table(n: int = 120, v: int = 200, seed: int = 0, bad: tuple[int, ...] = (), checks: bool = True) -> FeatureTable:
    """A complete table with both threshold nulls and three checks."""
    return FeatureTable.from_arrays(
        columns(n, v, seed, bad),
        vocab=vocabulary(v),
        nulls=[null("isotropic"), null("decoder_cov")],
        checks=[null("isotropic", 1), null("decoder_cov", 1), null("sign_flip", 1)] if checks else [],
        model="tiny",
        sae="L0",
    )
