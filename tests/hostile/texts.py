"""Hostile text: a fixed list that a tokenizer can hold, names for folders, and a strategy that makes more."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from pathlib import Path
from xml.etree import ElementTree

from hypothesis import strategies as st
from rich.cells import cell_len
from wcwidth import wcswidth

TOKENS = (
    "\x1b[31mred", "\x1b]0;title\x07", "\x1b]8;;http://x\x1b\\link", "\x1bP1$q\x1b\\", "\x1bc", "\x1b[2J",
    "\x9b31m", "\x9d0;c1\x9c", "\x90q\x9c", "\x85", "\0", "\x07", "\x08\x08\x08", "\n", "a\nb", "\r",
    "\r\n", "\t\t", "\x0b", "\x0c", "\x1c\x1d\x1e\x1f", "\x7f", "\u202egnp.exe", "\u2066a\u2069", "\u200f",
    "\u061c", "\u200b", "\u200d", "\ufeff", "\u2060", "\u00ad", "\u034f", "\u180e", "a\u0301\u0301\u0301",
    "e\u0301", "\u0301", "ก็็็็็็", "क्षि", "👩\u200d👩\u200d👧", "👍🏽", "1\ufe0f\u20e3", "❤\ufe0f", "🇩🇪", "🇩",
    "東京", "ﷺ", "﷽", "\u1100\u1161\u11a8", "\u115f", "\u3164", "\uffa0", "\u2800", "\u3000", "\u00a0",
    "\u2028", "\u2029", "\U000e0041\U000e0042", "\U000e0001", "\ue000", "\uffff", "\ufffd",
    "[bold]x[/bold]", "[/]", "[/foo]", "[@click=app.quit]q[/]", "[link=x]", "$error", "&amp;<b>]]>",
    "x" * 400, " ", "   ", "=SUM(A1)", "@cmd", "-1+1", "'=1", '"', ",", "\\xe2", "\\u{202e}", "שלום",
    "مرحبا",
)  # fmt: skip
"""What a tokenizer can hold: sequences that end a line, move the cursor, set a title or a link, reverse the reading,
take no cell or two, look like markup or a formula. Lone surrogates are no UTF-8; they come by file names and notes."""
NAME = "\x1b]0;pwn\x07\x9b2J\u202e\u200b[bold]\u2028"
"""In names of folders: a window title, a C1 sequence, a bidi override, a character of no width, markup, a line end."""
BROKEN = "\udcff"
"""A byte that is no UTF-8, as Python has it in file names."""

ALPHABET = st.one_of(
    st.characters(codec=None),
    st.sampled_from(
        [*"\x1b\x9b\x9d\0\r\n\t\x7f\u202e\u2066\u200b\u200d\ufe0f\u0301\u2028[]/=m;", "\ud800", "\udc80", "👩", "東"]
    ),
    st.sampled_from("ab"),
)
hostile_text = st.one_of(st.text(ALPHABET, max_size=24), st.lists(st.sampled_from(TOKENS), max_size=3).map("".join))
"""Any text at all, mostly bad."""


def harm(text: str, lines: bool = True) -> list[str]:
    """What a terminal would obey, or not show, in a text that was written to it; ``lines``: line ends are meant."""
    if text.isprintable():
        return []
    bad = [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and not (lines and c == "\n")]
    return [f"{ord(c):x}" for c in bad]


def files_are_sound(folder: Path) -> int:
    """Look at every text file below a folder: nothing in it that a terminal obeys, and it reads back as what it is.

    Returns:
        int: how many.
    """
    found = [path for path in folder.rglob("*") if path.is_file() and path.suffix in KINDS]
    for path in found:
        text = path.read_text(encoding="utf-8")
        bad = harm(text.replace("\u200c", "").replace("\u200d", ""))
        assert not bad, (ascii(path.name), bad[:9])
        if path.suffix == ".json":
            json.loads(text)
        elif path.suffix == ".jsonl":
            assert all(json.loads(line) is not None for line in text.split("\n") if line)
        elif path.suffix == ".svg":
            ElementTree.fromstring(text)
        elif path.suffix == ".csv":
            widths = {len(row) for row in csv.reader(io.StringIO(text, newline=""))}
            assert len(widths) == 1, (ascii(path.name), widths)
    return len(found)


KINDS = (".csv", ".json", ".jsonl", ".svg", ".md")


def misplaced(text: str, width: int) -> bool:
    """Whether a line is not ``width`` cells wide for Rich, for wcwidth, or character by character."""
    return {cell_len(text), wcswidth(text), sum(map(cell_len, text))} != {width}
