"""``safe_token_text``: the one function between any token and any screen, log or file.

Token strings are hostile: they hold ESC sequences, NUL, newlines, bidi overrides, zero-width characters, lone
surrogates and markup. What it returns prints as exactly what it says, in a known number of cells.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from rich.cells import cell_len

_SHOWN = {"\n": "⏎", "\t": "⇥", "\r": "␍", "\0": "␀", "\x1b": "␛", "\x7f": "␡"}
_INVISIBLE_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Me", "Mn", "Mc"}


@lru_cache(maxsize=65536)
def safe_token_text(text: str, *, ascii_only: bool = False) -> str:
    """A token's text as it may be shown: printable, one line, no control, bidi, zero-width or combining characters.

    Args:
        text: any string, lone surrogates included.
        ascii_only: replace everything outside printable ASCII by an escape.

    Returns:
        str: what is shown. Control characters become their pictures, invisible and combining ones ``\\u{…}``; an empty
        string becomes ``∅``. Spaces stay spaces: callers decide what to do with a leading one.
    """
    if not text:
        return "(empty)" if ascii_only else "∅"
    out: list[str] = []
    for char in text:
        if " " <= char <= "~":
            out.append(char)
        elif ascii_only:
            out.append(_escape(char))
        elif char in _SHOWN:
            out.append(_SHOWN[char])
        elif unicodedata.category(char) in _INVISIBLE_CATEGORIES or cell_len(char) == 0:
            out.append(_escape(char))
        elif unicodedata.category(char) == "Zs":
            out.append("␣")
        else:
            out.append(char)
    return "".join(out)


def word_text(text: str, *, ascii_only: bool = False) -> str:
    """A token as shown in lists of words: safe, without its leading space; a token of spaces alone is counted."""
    stripped = text.lstrip(" ")
    if not stripped:
        return (
            safe_token_text(text, ascii_only=ascii_only)
            if not text
            else f"({len(text)} sp)"
            if ascii_only
            else "␣" * min(len(text), 4)
        )
    return safe_token_text(stripped, ascii_only=ascii_only)


def fit(text: str, width: int, *, ellipsis: str = "…") -> str:
    """Cut or pad safe text to exactly ``width`` terminal cells."""
    if width <= 0:
        return ""
    length = cell_len(text)
    if length <= width:
        return text + " " * (width - length)
    room = width - cell_len(ellipsis)
    out: list[str] = []
    used = 0
    for char in text:
        step = cell_len(char)
        if used + step > room:
            break
        out.append(char)
        used += step
    return "".join(out) + ellipsis + " " * (room - used)


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{{{code:x}}}"
