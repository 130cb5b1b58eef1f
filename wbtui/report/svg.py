"""A small SVG writer: panels with axes, lines, steps, bars, cells. Readable in black and white: marks, dashes, hatches.

Coordinates are pixels from the top left; data goes through a :class:`Panel`. Output is deterministic text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

import numpy as np

from wbtui.display import safe_token_text

FONT = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
MARKS = ("circle", "square", "triangle", "diamond", "cross")
HATCHES = {
    "solid": None,
    "diagonal": "M-1,1 l2,-2 M0,6 l6,-6 M5,7 l2,-2",
    "dots": "M2.5,3 h1.2",
    "white": None,
}


def drawn(text: str) -> str:
    """Text as XML holds it: names of SAEs are made safe, for XML has no escape for most controls."""
    return escape(safe_token_text(text)) if text else ""


def number(value: float) -> str:
    """A coordinate: two decimals, no trailing zeros."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


@dataclass(frozen=True)
class Style:
    """How a series is drawn: told apart by mark and dash first, grey second."""

    colour: str = "#000"
    dash: str = ""
    width: float = 1.4
    mark: str = ""
    hollow: bool = False


class Drawing:
    """One picture of a given size."""

    def __init__(self, width: float, height: float, title: str) -> None:
        self.width, self.height, self.title = width, height, title
        self._parts: list[str] = []

    def add(self, part: str) -> None:
        """Raw SVG."""
        self._parts.append(part)

    def line(self, x1: float, y1: float, x2: float, y2: float, style: Style | None = None) -> None:
        """A straight line."""
        style = style or Style(width=0.8)
        dash = f' stroke-dasharray="{style.dash}"' if style.dash else ""
        self.add(
            f'<line x1="{number(x1)}" y1="{number(y1)}" x2="{number(x2)}" y2="{number(y2)}" '
            f'stroke="{style.colour}" stroke-width="{style.width}"{dash}/>'
        )

    def path(self, points: Sequence[tuple[float, float]], style: Style, fill: str = "none", opacity: float = 1) -> None:
        """A polyline, or a filled outline without stroke where ``fill`` is given."""
        if not points:
            return
        data = "M" + " L".join(f"{number(x)},{number(y)}" for x, y in points)
        if fill != "none":
            self.add(f'<path d="{data} Z" fill="{fill}" fill-opacity="{opacity}" stroke="none"/>')
            return
        dash = f' stroke-dasharray="{style.dash}"' if style.dash else ""
        self.add(
            f'<path d="{data}" fill="none" stroke="{style.colour}" stroke-width="{style.width}"{dash} '
            'stroke-linejoin="round"/>'
        )

    def rect(self, x: float, y: float, w: float, h: float, fill: str, stroke: str = "none") -> None:
        """A rectangle."""
        self.add(
            f'<rect x="{number(x)}" y="{number(y)}" width="{number(w)}" height="{number(h)}" fill="{fill}" '
            f'stroke="{stroke}" stroke-width="0.6"/>'
        )

    def text(
        self, x: float, y: float, text: str, size: float = 10, anchor: str = "start", bold: bool = False,
        colour: str = "#000", turn: float = 0,
    ) -> None:  # fmt: skip
        """Text with its baseline at y."""
        weight = ' font-weight="bold"' if bold else ""
        turned = f' transform="rotate({number(turn)} {number(x)} {number(y)})"' if turn else ""
        self.add(
            f'<text x="{number(x)}" y="{number(y)}" font-size="{size}" text-anchor="{anchor}" fill="{colour}"'
            f"{weight}{turned}>{drawn(text)}</text>"
        )

    def mark(self, x: float, y: float, style: Style, size: float = 3.2) -> None:
        """One data point."""
        fill = "#fff" if style.hollow else style.colour
        paint = f'fill="{fill}" stroke="{style.colour}" stroke-width="1"'
        s = size
        if style.mark == "circle":
            self.add(f'<circle cx="{number(x)}" cy="{number(y)}" r="{number(s)}" {paint}/>')
        elif style.mark == "cross":
            self.line(x - s, y - s, x + s, y + s, Style(style.colour, width=1.1))
            self.line(x - s, y + s, x + s, y - s, Style(style.colour, width=1.1))
        elif style.mark:
            corners = {
                "square": [(-s, -s), (s, -s), (s, s), (-s, s)],
                "triangle": [(-s * 1.1, s * 0.9), (s * 1.1, s * 0.9), (0, -s * 1.2)],
                "diamond": [(-s * 1.2, 0), (0, -s * 1.2), (s * 1.2, 0), (0, s * 1.2)],
            }[style.mark]
            points = " ".join(f"{number(x + dx)},{number(y + dy)}" for dx, dy in corners)
            self.add(f'<polygon points="{points}" {paint}/>')

    def legend(self, x: float, y: float, items: Sequence[tuple[str, Style]], gap: float = 18) -> None:
        """Samples with their names in one row."""
        for name, style in items:
            if style.width:
                self.line(x, y - 3.5, x + 24, y - 3.5, style)
            self.mark(x + 12, y - 3.5, style)
            self.text(x + 29, y, name)
            x += 29 + text_width(name) + gap

    def note(self, x: float, y: float, text: str, width: float) -> None:
        """A small grey footnote, wrapped."""
        for k, line in enumerate(wrap(text, width, 8.5)):
            self.text(x, y + 11 * k, line, size=8.5, colour="#444")

    def svg(self) -> str:
        """The file's text."""
        patterns = "".join(
            f'<pattern id="{name}" width="6" height="6" patternUnits="userSpaceOnUse">'
            f'<rect width="6" height="6" fill="#fff"/><path d="{data}" stroke="#000" stroke-width="1.1"/></pattern>'
            for name, data in HATCHES.items()
            if data
        )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{number(self.width)}" height="{number(self.height)}" '
            f'viewBox="0 0 {number(self.width)} {number(self.height)}" font-family="{FONT}" role="img">\n'
            f"<title>{drawn(self.title)}</title>\n<defs>{patterns}</defs>\n"
            f'<rect width="100%" height="100%" fill="#fff"/>\n' + "\n".join(self._parts) + "\n</svg>\n"
        )


def text_width(text: str, size: float = 10) -> float:
    """About how wide a text is."""
    return sum(0.36 if c in " .,:;il|'()" else 0.9 if c in "mwMW%@" else 0.6 for c in text) * size


def wrap(text: str, width: float, size: float) -> list[str]:
    """Lines of at most ``width`` pixels."""
    lines = [""]
    for word in text.split():
        trial = f"{lines[-1]} {word}".strip()
        if lines[-1] and text_width(trial, size) > width:
            lines.append(word)
        else:
            lines[-1] = trial
    return lines


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers across a range."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low] if math.isfinite(low) else []
    raw = (high - low) / about
    base = 10 ** math.floor(math.log10(raw))
    step = next(m * base for m in (1, 2, 5, 10) if m * base >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [float(round(k * step, 12)) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 of each decade; whole decades alone over a wide range, round steps over a narrow one."""
    if high / low < 8:
        return [t for t in ticks(low, high, 7) if t > 0]
    wide = math.log10(high / low) > 2.5
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [m * 10.0**d for d in decades for m in ((1,) if wide else (1, 2, 5))]
    return [t for t in found if low * 0.999 <= t <= high * 1.001]


@dataclass
class Panel:
    """A rectangle with data axes.

    Attributes:
        x, y, w, h: pixels. xlim, ylim: data ranges. log: a logarithmic x axis.
    """

    drawing: Drawing
    x: float
    y: float
    w: float
    h: float
    xlim: tuple[float, float]
    ylim: tuple[float, float]
    log: bool = False

    def px(self, value: float) -> float:
        """Data to pixels."""
        low, high = self.xlim
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, 1e-300))
        return self.x + self.w * (value - low) / (high - low or 1)

    @property
    def step(self) -> float:
        """Pixels between two whole numbers of a linear x axis."""
        return self.w / (self.xlim[1] - self.xlim[0] or 1)

    def py(self, value: float) -> float:
        """Data to pixels."""
        low, high = self.ylim
        return self.y + self.h * (1 - (value - low) / (high - low or 1))

    def frame(
        self, title: str = "", xlabel: str = "", ylabel: str = "", xticks: Sequence[tuple[float, str]] | None = None,
        yticks: Sequence[tuple[float, str]] | None = None, percent: bool = False, grid: bool = True,
    ) -> None:  # fmt: skip
        """Axes, ticks, labels."""
        d = self.drawing
        if yticks is None:
            steps = ticks(*self.ylim)
            yticks = [(t, (f"{100 * t:g}" if percent else f"{t:g}").replace("-", "−")) for t in steps]
        if xticks is None:
            xticks = [
                (t, f"{t:g}".replace("-", "−")) for t in (log_ticks(*self.xlim) if self.log else ticks(*self.xlim))
            ]
        for value, label in yticks:
            if grid:
                d.line(self.x, self.py(value), self.x + self.w, self.py(value), Style("#ddd", width=0.6))
            d.line(self.x - 3, self.py(value), self.x, self.py(value))
            d.text(self.x - 6, self.py(value) + 3.5, label, anchor="end")
        for value, label in xticks:
            d.line(self.px(value), self.y + self.h, self.px(value), self.y + self.h + 3)
            d.text(self.px(value), self.y + self.h + 14, label, anchor="middle")
        d.line(self.x, self.y, self.x, self.y + self.h)
        d.line(self.x, self.y + self.h, self.x + self.w, self.y + self.h)
        if title:
            d.text(self.x, self.y - 8, title, size=11, bold=True)
        if xlabel:
            d.text(self.x + self.w / 2, self.y + self.h + 29, xlabel, anchor="middle")
        if ylabel:
            d.text(self.x - 38, self.y + self.h / 2, ylabel, anchor="middle", turn=-90)

    def series(
        self, xs: Sequence[float], ys: Sequence[float], style: Style, low: Sequence[float] = (),
        high: Sequence[float] = (), join: bool = True, shift: float = 0,
    ) -> None:  # fmt: skip
        """Points with their intervals, joined by a line that breaks where a value is missing."""
        d = self.drawing
        run: list[tuple[float, float]] = []
        for x, y in [*zip(xs, ys, strict=True), (float("nan"), float("nan"))]:
            if math.isfinite(y):
                run.append((self.px(x) + shift, self.py(y)))
            elif run:
                if join and len(run) > 1:
                    d.path(run, style)
                run = []
        thin = Style(style.colour, width=0.9)
        for x, a, b in zip(xs, low, high, strict=False):
            if math.isfinite(a) and math.isfinite(b):
                at = self.px(x) + shift
                d.line(at, self.py(a), at, self.py(b), thin)
                for end in (a, b):
                    d.line(at - 2, self.py(end), at + 2, self.py(end), thin)
        for x, y in zip(xs, ys, strict=True):
            if math.isfinite(y):
                d.mark(self.px(x) + shift, self.py(y), style)

    def steps(self, edges: np.ndarray, heights: np.ndarray, style: Style, fill: str = "") -> None:
        """A histogram's outline."""
        points = [(self.px(float(edges[0])), self.py(0))]
        for k, height in enumerate(heights):
            level = self.py(float(height))
            points += [(self.px(float(edges[k])), level), (self.px(float(edges[k + 1])), level)]
        points.append((self.px(float(edges[-1])), self.py(0)))
        if fill:
            self.drawing.path(points, style, fill=fill, opacity=0.55)
        self.drawing.path(points, style)

    def vertical(self, value: float, label: str, style: Style) -> None:
        """A marked place on the x axis, its name at the top."""
        at = self.px(value)
        self.drawing.line(at, self.y, at, self.y + self.h, style)
        right = at + text_width(label, 9) + 4 > self.x + self.w
        self.drawing.text(at + (-3 if right else 3), self.y + 9, label, size=9, anchor="end" if right else "start")
