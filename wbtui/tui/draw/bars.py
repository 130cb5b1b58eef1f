"""Bars and sparklines in eighths of a cell."""

from __future__ import annotations

import math

import numpy as np

from wbtui.tui.draw.line import Line

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_LEVELS = " ▁▂▃▄▅▆▇█"


def bar(value: float, full: float, width: int, noise: float = math.nan, role: str = "writes") -> Line:
    """A bar of ``value`` on a scale where ``full`` fills ``width`` cells.

    What lies inside the noise (up to ``noise``, a level on the same scale) is drawn light (``░``), what stands beyond
    it solid; a value inside the noise is light throughout, with a ``┊`` at the level it would have had to pass.
    """
    if width <= 0:
        return []
    if not (math.isfinite(value) and full > 0):
        return [(" " * width, "text")]
    length = min(max(value / full, 0.0), 1.0) * width
    if not math.isfinite(noise):
        return [(_solid(length, width), role)]
    level = min(max(noise / full, 0.0), 1.0) * width
    edge = min(round(level), width)
    if length <= level:
        light = "░" * min(round(length), edge)
        tick = edge if edge < width else width - 1
        return [(light[:tick].ljust(tick), "noise"), ("┊", "faint"), (" " * (width - tick - 1), "text")]
    return [("░" * edge, "noise"), (_solid(max(length - edge, 0.125), width - edge), role)]


def _solid(length: float, width: int) -> str:
    eighths = min(round(length * 8), width * 8)
    text = "█" * (eighths // 8)
    if eighths % 8:
        text += _EIGHTHS[eighths % 8]
    return text.ljust(width)


def spark(values: np.ndarray) -> str:
    """One line of blocks, the largest value full; a value above zero is never blank."""
    top = float(np.max(values)) if len(values) else 0.0
    if not top > 0:
        return " " * len(values)
    return "".join(_LEVELS[0 if v <= 0 else max(1, min(8, math.ceil(v / top * 8 - 0.5)))] for v in values)


def histogram(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Shares per bin of the finite values; what lies beyond the edges counts in the outermost bins."""
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return np.zeros(len(edges) - 1)
    counts, _ = np.histogram(np.clip(finite, edges[0], edges[-1]), edges)
    return counts / len(finite)
