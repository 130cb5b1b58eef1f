"""Pictures that look the same everywhere: every word at its own place on the grid.

Rich's SVG leaves spacing to the viewer (``textLength``, a web font): many viewers ignore the one and lack the other,
and columns drift apart. Here each word carries its own x, spaces are dropped, and no file is fetched.
"""

from __future__ import annotations

import html
import re

from rich.cells import cell_len

CELL = 12.2
"""Width of a cell in Rich's SVG at its font size of 20."""
FONT_SIZE = 20.26
"""DejaVu Sans Mono is .602 em wide: at this size a glyph fills its cell, and bars have no seams."""
FONTS = '"DejaVu Sans Mono", "Fira Code", Menlo, Consolas, monospace'
_TEXT = re.compile(r'<text class="([^"]*)" x="([0-9.]+)" y="([0-9.]+)" textLength="[0-9.]+"([^>]*)>([^<]*)</text>')


def on_grid(svg: str) -> str:
    """Rich's SVG with every word placed."""
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace("font-family: Fira Code, monospace;", f"font-family: {FONTS};")
    svg = svg.replace("font-size: 20px;", f"font-size: {FONT_SIZE}px;")
    svg = svg.replace("font-variant-east-asian: full-width;", "white-space: pre;")
    svg = svg.replace("font-family: arial;", "font-family: sans-serif;")
    return _TEXT.sub(_placed, svg)


def _placed(match: re.Match[str]) -> str:
    role, x, y, rest, content = match.groups()
    at = float(x)
    words: list[str] = []
    glyphs, start = "", at
    for char in [*html.unescape(content), " "]:
        if char in " \u00a0":
            if glyphs:
                words.append(f'<tspan x="{start:.1f}">{html.escape(glyphs, quote=False)}</tspan>')
            glyphs = ""
        else:
            start = start if glyphs else at
            glyphs += char
        at += CELL * cell_len(char)
    return f'<text class="{role}" y="{y}"{rest}>{"".join(words)}</text>' if words else ""
