"""E2 by dense float64 matrices in plain numpy: shares no code with :mod:`wbtui.analysis`."""

from __future__ import annotations

import numpy as np


def scale_rows(d: np.ndarray, kind: str, centre: bool, activation: float = 1.0) -> np.ndarray:
    d = d.astype(np.float64)
    seen = d - d.mean(1, keepdims=True) if centre else d
    norm = np.sqrt((seen**2).sum(1, keepdims=True))
    return {"rms": d / norm * np.sqrt(d.shape[1]), "unit": d / norm, "act": d * activation}[kind]


def turn_keys(k: np.ndarray, angles: np.ndarray, offset: int) -> np.ndarray:
    """Complex form: pair m is dims m and m + r/2; the key turns by minus the offset."""
    half = len(angles)
    z = (k[:, :half] + 1j * k[:, half : 2 * half]) * np.exp(-1j * offset * angles)
    return np.concatenate([z.real, z.imag, k[:, 2 * half :]], axis=1)


def statistics(
    scores: np.ndarray,
    cosines: np.ndarray,
    *,
    softcap: float | None = None,
    query_terms: np.ndarray | None = None,
    key_terms: np.ndarray | None = None,
    joins: bool = False,
    partition: np.ndarray | None = None,
    sink: float | None = None,
) -> dict[str, np.ndarray]:
    """Both sides' statistics of a dense score matrix ``[queries, keys]``.

    Args:
        joins: keys are strangers, each joining the keys that ``partition`` (``[queries]``, as many as keys) was
            summed over; scaled so that uniform attention gives 1.
        sink: a logit that joins each query's keys and carries no value; ``conc`` is told of the keys alone.
    """
    n, m = scores.shape
    out: dict[str, np.ndarray] = {}
    for side, s, c in (("query", scores, cosines), ("key", scores.T, cosines.T)):
        size = np.abs(s)
        out[f"{side}.rms"] = np.sqrt((s**2).mean(1))
        out[f"{side}.mean"] = s.mean(1)
        out[f"{side}.mean_abs"] = size.mean(1)
        out[f"{side}.p75"] = np.quantile(size, 0.75, axis=1)
        out[f"{side}.max"] = s.max(1)
        out[f"{side}.partner"] = s.argmax(1)
        out[f"{side}.max_cos"] = c[np.arange(len(s)), s.argmax(1)]
        out[f"{side}.cos_rms"] = np.sqrt((c**2).mean(1))
    logits = scores.copy()
    if query_terms is not None and key_terms is not None:
        logits += query_terms[:, None] + key_terms[None, :]
    if softcap is not None:
        logits = softcap * np.tanh(logits / softcap)
    e = np.exp(logits)
    z = e.sum(1) + (0.0 if sink is None else np.exp(sink))
    a = e / z[:, None]
    kept = e / e.sum(1)[:, None]
    out["query.top1"] = a.max(1)
    out["query.top5"] = np.sort(a, axis=1)[:, -5:].sum(1)
    out["query.conc"] = 1 + (kept * np.log(kept)).sum(1) / np.log(m) if m > 1 else np.zeros(n)
    if partition is None:
        out["key.received"] = a.sum(0)
    else:
        out["key.received"] = (e / (partition[:, None] + (e if joins else 0))).sum(0) * ((n + joins) / n)
    out["partition"] = z
    return out
