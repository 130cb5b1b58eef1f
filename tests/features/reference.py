"""Plain loops in float64, written from methods 1.2 alone: what the vectorised code must agree with."""

from __future__ import annotations

import math

METRICS = ("z_max", "z_10", "delta_h", "cos_tok", "lev")


def percentile(values, q):
    """Linear interpolation between closest ranks, NaN left out."""
    ordered = sorted(float(v) for v in values if math.isfinite(v))
    if not ordered:
        return math.nan
    place = (len(ordered) - 1) * q / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def envelope(word_z):
    """(tau_k, c) of one null kind; word_z is a list of rows of z_(k)."""
    k = len(word_z[0])
    med = [percentile([row[j] for row in word_z], 50) for j in range(k)]
    q = [percentile([row[j] for row in word_z], 99) for j in range(k)]
    largest = [max((row[j] - med[j]) / (q[j] - med[j]) for j in range(k)) for row in word_z]
    c = percentile(largest, 99)
    return [med[j] + c * (q[j] - med[j]) for j in range(k)], c


def n_words(z, tau):
    """Largest k with z_(k) above tau_k."""
    out = 0
    for k, (a, b) in enumerate(zip(z, tau, strict=True), start=1):
        if float(a) > float(b):
            out = k
    return out


def envelope_class(z, cos_tok, lev, tau, tau_c, tau_l):
    n = n_words(z, tau)
    if n == 0:
        return "none", n
    if n == 1:
        return "single", n
    return ("coherent" if cos_tok >= tau_c or lev >= tau_l else "diffuse"), n


def entropy_class(row, tau_h, tau_c, tau_l, tau_z):
    concentrated = row["delta_h"] >= tau_h
    if concentrated and (row["cos_tok"] >= tau_c or row["lev"] >= tau_l):
        return "coherent"
    if row["z_max"] > tau_z and row["mass_1"] >= 0.5:
        return "single"
    return "diffuse" if concentrated else "none"


def strongest(row, med, p99):
    return max((row[m] - med[m]) / (p99[m] - med[m]) for m in METRICS)


def evidence(row, nulls):
    """The smaller over kinds of the largest null unit over its own 99th percentile; ``nulls``: a list of rows each."""
    values = []
    for rows in nulls:
        med = {m: percentile([r[m] for r in rows], 50) for m in METRICS}
        p99 = {m: percentile([r[m] for r in rows], 99) for m in METRICS}
        scale = percentile([strongest(r, med, p99) for r in rows], 99)
        values.append(strongest(row, med, p99) / scale)
    return min(values)


def rows_of(read, names=(*METRICS, "mass_1", "word_share")):
    """Columns as a list of dicts of floats."""
    columns = {name: read(name) for name in names}
    n = len(columns["z_max"])
    return [{name: float(columns[name][i]) for name in names} for i in range(n)]
