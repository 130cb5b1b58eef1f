"""``safe_token_text``: the one function between any text from outside and any screen, log or file.

Token strings are hostile: they hold ESC sequences, NUL, newlines, bidi overrides, zero-width characters, lone
surrogates and markup. What it returns prints as exactly what it says, in a known number of cells.
"""

from __future__ import annotations

import json
import re
import unicodedata
from functools import lru_cache
from typing import Any

from rich.cells import cell_len

_SHOWN = {"\n": "⏎", "\t": "⇥", "\r": "␍", "\0": "␀", "\x1b": "␛", "\x7f": "␡"}
_INVISIBLE_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Me", "Mn", "Mc"}
_BLANK_LETTERS = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Letters and a symbol that draw nothing: fillers, the empty Braille cell."""
_FLAG_HALVES = frozenset(map(chr, range(0x1F1E6, 0x1F200)))
"""Two of them are a flag, or two letters of one or two cells each: terminals and width tables do not agree."""


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
    if text.isascii() and text.isprintable():
        return text
    out: list[str] = []
    for char in text:
        if " " <= char <= "~":
            out.append(char)
        elif ascii_only:
            out.append(_escape(char))
        elif char in _SHOWN:
            out.append(_SHOWN[char])
        elif (
            unicodedata.category(char) in _INVISIBLE_CATEGORIES
            or cell_len(char) == 0
            or char in _BLANK_LETTERS
            or char in _FLAG_HALVES
        ):
            out.append(_escape(char))
        elif unicodedata.category(char) == "Zs":
            out.append("␣")
        else:
            out.append(char)
    return "".join(out)


def safe_lines(text: str) -> str:
    """:func:`safe_token_text` line by line: line ends and empty lines stay."""
    return "\n".join(safe_token_text(line) if line else "" for line in text.split("\n"))


def file_text(text: str) -> str:
    """Text of a person's own for a file that is read as text (CSV): as it is, but what a terminal obeys is escaped.

    Line ends, combining marks and joiners stay (names and notes in many scripts need them); other controls, bidi
    overrides and lone surrogates do not.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in _KEPT else safe_token_text(c) for c in text)


_KEPT = "\n\u200c\u200d\u00a0\u3000"


def json_text(data: Any, *, indent: int | None = None) -> str:
    """Data as JSON that is safe to print: what is not printable is a ``\\u`` escape, so that nothing is lost.

    Raises:
        ValueError: a number that is not finite.
    """
    text = json.dumps(data, indent=indent, ensure_ascii=False, allow_nan=False)
    return text if text.isascii() and "\x7f" not in text else _NOT_ASCII.sub(_json_escape, text)


_NOT_ASCII = re.compile("[^\x00-\x7e]+")
"""Controls below a space are escaped in JSON anyway, or are its line ends."""


def _json_escape(match: re.Match[str]) -> str:
    found = match.group(0)
    if found.isprintable():
        return found
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] if c != "\x7f" else "\\u007f" for c in found)


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
