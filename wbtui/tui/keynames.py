"""Names of keys: as people write them (``:``, ``^d``, ``PgDn``), and as Textual does (``colon``, ``ctrl+d``)."""

from __future__ import annotations

import re
import unicodedata

from wbtui.errors import UsageError
from wbtui.settings import nearest

_SHOWN = {
    "down": "↓", "up": "↑", "left": "←", "right": "→", "enter": "⏎", "escape": "Esc", "tab": "Tab", "space": "Spc",
    "pagedown": "PgDn", "pageup": "PgUp", "home": "Home", "end": "End", "delete": "Del", "backspace": "Bsp",
    "insert": "Ins",
}  # fmt: skip
_OURS = {
    "solidus": "slash", "reverse_solidus": "backslash", "commercial_at": "at", "hyphen_minus": "minus",
    "plus_sign": "plus", "low_line": "underscore",
}  # fmt: skip
_WORDS = {word.casefold(): name for name, word in _SHOWN.items()} | {"esc": "escape", "return": "enter", " ": "space"}
_CHARACTERS = {
    _OURS.get(name, name): char
    for char in map(chr, range(0x21, 0x7F))
    if not char.isalnum()
    for name in [unicodedata.name(char).lower().replace("-", "_").replace(" ", "_")]
}
"""Textual's name of a sign -> the sign."""
_NAMES = {char: name for name, char in _CHARACTERS.items()}
_KNOWN = {*_SHOWN, *_CHARACTERS, *(f"f{n}" for n in range(1, 25))}
_MODIFIED = re.compile(r"((?:(?:ctrl|shift|alt)\+)*)(.+)", re.DOTALL)


def key_name(text: str, where: str) -> str:
    """Textual's name of a key as a person wrote it: ``:``, ``colon``, ``^d``, ``ctrl+d``, ``PgDn``, ``f5``.

    Raises:
        UsageError: no such key; ``where`` begins the line.
    """
    written = text if text == "^" or not text.startswith("^") else "ctrl+" + text[1:]
    match = _MODIFIED.fullmatch(written)
    modifiers, base = (match.group(1), match.group(2)) if match else ("", written)
    if len(base) == 1 and base.isalnum():
        return modifiers + (base.lower() if "ctrl+" in modifiers else base)
    base = _NAMES.get(base) or _WORDS.get(base.casefold(), base)
    if base not in _KNOWN and base.lower() in _KNOWN:
        base = base.lower()
    if base not in _KNOWN:
        near = nearest(base.lower(), _KNOWN)
        raise UsageError(
            f"{where}: key {text!r}",
            f"{near!r}" if near else "a letter, a sign, or a name such as ctrl+d, pagedown, f5, space",
        )
    return modifiers + base


_ASCII = {"down": "Down", "up": "Up", "left": "Left", "right": "Right", "enter": "Enter"}


def shown_key(name: str, *, ascii: bool = False) -> str:
    """A key as footer and help write it."""
    modifiers, _, base = name.rpartition("+")
    base = (
        (ascii and _ASCII.get(base))
        or _SHOWN.get(base)
        or _CHARACTERS.get(base)
        or (base.upper() if re.fullmatch(r"f\d+", base) else base)
    )
    signs = "".join(
        {"ctrl": "^", "shift": "S-" if ascii else "⇧", "alt": "M-"}.get(word, word)
        for word in modifiers.split("+")
        if word
    )
    return signs + base
