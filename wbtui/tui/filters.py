"""What stands between every widget's output and the terminal."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from wbtui.display import fit
from wbtui.tui.plain import ascii_cells


class Guard(LineFilter):
    """No control, bidi override or other format character reaches the terminal, whichever widget drew it.

    What wbtui draws is safe where it is made; this is for text that other code draws: entries and editors into which
    anything can be pasted, the palette, toasts. Such characters are left out, in as many cells.
    """

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """Every segment without them."""
        if all(segment.text.isprintable() for segment in segments):
            return segments
        return [Segment(_harmless(s.text), s.style, s.control) for s in segments]


@lru_cache(maxsize=1024)
def _harmless(text: str) -> str:
    if text.isprintable():
        return text
    kept = "".join(c for c in text if c.isprintable() or unicodedata.category(c) in ("Zs", "Co", "Cn"))
    return kept if cell_len(kept) == cell_len(text) else fit(kept, cell_len(text), ellipsis="")


class AsciiFilter(LineFilter):
    """The last thing before the terminal."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """Every segment in ASCII."""
        return [
            segment if segment.text.isascii() else Segment(ascii_cells(segment.text), segment.style, segment.control)
            for segment in segments
        ]
