"""Dictionary rows as directions in front of the token matrices (methods 0, 3.1), of numpy or torch alike."""

from __future__ import annotations

from wbtui.analysis.either import Array, double, lengths, like, namespace, single

_ROWS = 32
"""Rows taken at once, whose fp64 copies stay in a core's cache."""
VANISHED = 1e-6
"""A decoder row of which centring leaves less than this share writes nothing."""


def output_directions(d: Array, gain: Array | None, centre: bool, unembed: str) -> tuple[Array, Array]:
    """Decoder rows as directions in front of the plain unembedding: ``unit(d) P diag(gain)`` (methods 0, 3.1).

    The division by the row's norm is left to the values at the end: its rounding would break true ties between tokens.

    Args:
        d: ``[n, D]`` decoder rows in the residual stream.
        gain: ``[D]`` effective gain of the final norm (``1 + w`` where the model adds one); None is ones.
        centre: the final norm is a LayerNorm, so ``P`` subtracts the row's mean.
        unembed: ``folded``, or ``raw`` for the unit row alone.

    Returns:
        directions ``[n, D]`` fp32 of ``d P diag(gain)``, each row scaled by a power of two (exact), and the lengths
        ``[n]`` fp64 to divide scores by, those of ``d`` on the same scale. Non-finite rows are NaN; zero rows, and rows
        that centring takes away, are zero.
    """
    if unembed not in ("folded", "raw"):
        raise ValueError(unembed)
    xp = namespace(d)
    out = xp.empty_like(d, dtype=xp.float32)
    sizes = xp.ones_like(d[:, 0], dtype=xp.float64)
    for a in range(0, d.shape[0], 512):
        x = double(d[a : a + 512])
        norm, exponent = exponents(x)
        x = xp.where(xp.isfinite(norm)[:, None], x * _power(exponent)[:, None], float("nan"))
        length = lengths(x)
        sizes[a : a + 512] = xp.where(length > 0, length, 1.0)
        if unembed == "folded":
            if centre:
                x = x - x.mean(1)[:, None]
                x = xp.where((lengths(x) < VANISHED * length)[:, None], 0.0, x)
            if gain is not None:
                x = x * double(like(gain, x))
        out[a : a + 512] = x
    return out, sizes


def exponents(directions: Array) -> tuple[Array, Array]:
    """Norms (fp64) and the exact power of two that brings each row's norm into [0.5, 1)."""
    xp = namespace(directions)
    norm = lengths(double(directions))
    return norm, xp.frexp(xp.where(xp.isfinite(norm), norm, 0.0))[1]


def _power(exponent: Array) -> Array:
    """``2 ** -exponent`` in fp64: exact for fp32 rows, as a product with it is, which takes a fraction of ``ldexp``."""
    xp = namespace(exponent)
    return xp.ldexp(xp.ones_like(exponent, dtype=xp.float64), -exponent)


def scaled(block: Array) -> tuple[Array, Array, Array]:
    """Rows, each scaled by a power of two (exact), so that the reductions' fp32 powers neither over- nor underflow:
    ``[n, D]`` fp32 (absent rows zero), norms ``[n]`` fp64, the powers taken out ``[n]``."""
    xp = namespace(block)
    out = xp.empty_like(block, dtype=xp.float32)
    norm = xp.empty_like(block[:, 0], dtype=xp.float64)
    exponent = xp.empty_like(block[:, 0], dtype=xp.int32)
    for a in range(0, len(block), _ROWS):
        rows = slice(a, a + _ROWS)
        x = double(block[rows])
        norm[rows], exponent[rows] = exponents(x)
        good = xp.isfinite(norm[rows]) & (norm[rows] > 0)
        out[rows] = xp.where(good[:, None], single(x * _power(exponent[rows])[:, None]), 0.0)
    return out, norm, exponent
