"""Marks, tags and notes of one SAE's features as a snapshot that filters, columns and cards read."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from wbtui.errors import UsageError

MAX_TAG = 40
TAG = re.compile(rf"[^\s#,:|()!\"<>=*]{{1,{MAX_TAG}}}")
"""What a tag may be: a word that the filter language can name."""
MAX_NOTE = 20_000
_BIDI = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_serial = itertools.count()


@dataclass(frozen=True)
class Kept:
    """One SAE's marks, tags and notes. Nothing in it is ever changed: a change makes another."""

    marks: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    """bool [up to d_sae]; features beyond its end are not marked."""
    tags: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """Feature -> its tags, sorted."""
    notes: Mapping[int, str] = field(default_factory=dict)
    error: str = ""
    """Why nothing could be read, if so: filters then refuse rather than find nothing."""
    serial: int = field(default_factory=lambda: next(_serial))
    """Another number for each snapshot."""

    def marked(self, n: int) -> np.ndarray:
        """bool [n]: marked features."""
        out = np.zeros(n, dtype=bool)
        out[: min(n, len(self.marks))] = self.marks[:n]
        return out

    def with_tag(self, n: int, tag: str) -> np.ndarray:
        """bool [n]: features with a tag (case does not matter; ``*`` is any)."""
        wanted = tag.casefold()
        return _mask(n, (f for f, own in self.tags.items() if wanted == "*" or wanted in map(str.casefold, own)))

    def with_note(self, n: int, text: str) -> np.ndarray:
        """bool [n]: features whose note holds a text (case does not matter; ``*`` is any)."""
        wanted = text.casefold()
        return _mask(n, (f for f, note in self.notes.items() if wanted == "*" or wanted in note.casefold()))

    def text(self, column: str, feature: int) -> str:
        """One feature's ``tags`` (joined by spaces) or ``note``; empty where there is none."""
        return " ".join(self.tags.get(feature, ())) if column == "tags" else self.notes.get(feature, "")

    def texts(self, column: str) -> dict[int, str]:
        """Every feature that has some, with its ``tags`` or ``note``."""
        return {f: self.text(column, f) for f in (self.tags if column == "tags" else self.notes)}

    def counts(self) -> dict[str, int]:
        """Tag -> how many features have it, the most used first."""
        out: dict[str, int] = {}
        for own in self.tags.values():
            for tag in own:
                out[tag] = out.get(tag, 0) + 1
        return dict(sorted(out.items(), key=lambda item: (-item[1], item[0])))


def _mask(n: int, features: object) -> np.ndarray:
    out = np.zeros(n, dtype=bool)
    out[[f for f in features if f < n]] = True  # type: ignore[attr-defined]
    return out


def parse_tags(text: str) -> tuple[str, ...]:
    """Tags as typed: words, with or without ``#``, commas allowed between; sorted, each once.

    Raises:
        UsageError: a word that can be no tag.
    """
    out = set()
    for word in text.replace(",", " ").split():
        tag = word.removeprefix("#")
        if not TAG.fullmatch(tag) or not tag.isprintable():
            raise UsageError(
                f"tag {word!r}", f'a word of at most {MAX_TAG} characters, without spaces and # , : | ( ) ! < > = * "'
            )
        out.add(tag)
    return tuple(sorted(out))


def clean_note(text: str) -> str:
    """A note as it is kept: line ends as ``\\n``, no blanks around it, no controls and bidi overrides in it.

    Raises:
        UsageError: too long.
    """
    text = "\n".join(text.expandtabs(4).splitlines())
    text = "".join(c for c in text if c == "\n" or not (unicodedata.category(c) == "Cc" or c in _BIDI)).strip()
    text = text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates cannot be stored
    if len(text) > MAX_NOTE:
        raise UsageError(f"a note of {len(text):,} characters", f"at most {MAX_NOTE:,}")
    return text
