"""``--ascii``: no glyph beyond ASCII reaches the terminal.

Two steps. Text that comes from outside (tokens, notes) is escaped where it enters a line, so that its width is known
and two tokens never look alike (:func:`shown_text`). Everything else is the app's own drawing: one filter over every
widget's output (:mod:`wbtui.tui.filters`) puts an ASCII sign of the same width for each glyph; what it does not know
becomes ``?``.
"""

from __future__ import annotations

from functools import lru_cache

from rich.cells import cell_len

from wbtui.display import safe_token_text

_PICTURES = {
    "⏎": "\\n", "⇥": "\\t", "␍": "\\r", "␀": "\\0", "␛": "\\e", "␡": "\\x7f", "␣": "_", "∅": "(empty)",
}  # fmt: skip
"""What ``safe_token_text`` draws for characters without a look of their own."""
_SAME = {
    "─━┄┈╌": "-", "│┃┊┆": "|", "┬┴┼├┤┌┐└┘┷┿╭╮╯╰╶╴": "+",
    "█▉": "#", "▊▋▌": "=", "▍▎▏": "-", "▐": "#", "▀": "#", "░": ".", "▒": ":", "▓": "%",
    "▁": "_", "▂": ".", "▃": ":", "▄": "-", "▅": "=", "▆": "+", "▇": "*",
    "●•": "*", "◉": "@", "○◯": "o", "◐": "%", "▪": "*", "▸›▶": ">", "◂‹◀": "<", "▲▴": "^", "▼▾": "-",
    "…": "~", "·": ".", "–—−": "-", "“”„": '"', "‘’": "'", "×": "x", "±": "+", "≈": "~", "≡": "=", "≥": ">", "≤": "<",
    "←": "<", "→": ">", "↑": "^", "↓": "v", "⇧": "^", "⏎": "<", "␣": "_", "∅": "0", "κ": "k", "δ": "d", "Δ": "D",
    "µμ": "u", "§": "S", "°": "o", "√": "v", "∞": "8", "σ": "s",
    "⁰": "0", "¹": "1", "²": "2", "³": "3", "⁴": "4", "⁵": "5", "⁶": "6", "⁷": "7", "⁸": "8", "⁹": "9",
    "▔": "-", "▕": "|", "🔎": "> ", "\u00a0": " ",
}  # fmt: skip
TABLE = {ord(glyph): sign for glyphs, sign in _SAME.items() for glyph in glyphs}
_on = False


def use_ascii(on: bool) -> None:
    """Whether text from outside is escaped from now on."""
    global _on
    _on = on


def ascii_on() -> bool:
    """Whether ``--ascii`` holds."""
    return _on


def shown_text(text: str) -> str:
    """Safe text from outside as it enters a line: itself, or with ``--ascii`` escaped."""
    if not _on or text.isascii():
        return text
    return "".join(_PICTURES.get(char) or safe_token_text(char, ascii_only=True) for char in text)


@lru_cache(maxsize=4096)
def ascii_cells(text: str) -> str:
    """Any text in as many cells of ASCII."""
    if text.isascii():
        return text
    text = text.translate(TABLE)
    return text if text.isascii() else "".join(c if c.isascii() else "?" * cell_len(c) for c in text)
