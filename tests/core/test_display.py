"""safe_token_text stands between every token and every screen."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from wbtui.display import fit, safe_token_text, word_text

HOSTILE = [
    "\x1b[31m",
    "\0",
    "a\nb",
    "\r",
    "\t",
    "‮abc",
    "​",
    "e\u0301",
    "\ud800",
    "[/foo]",
    "😀",
    "\x9b31m",
    "",
    "﷽",
    "﻿",
    "؜",
    "\U000e0041",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_tokens_become_plain(text: str) -> None:
    shown = safe_token_text(text)
    assert shown
    assert all(unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Zl", "Zp", "Mn", "Me"} for c in shown)
    shown.encode()  # no lone surrogate is left


@given(st.text(st.characters(codec=None), max_size=20))
def test_nothing_unprintable_passes(text: str) -> None:
    for shown in (safe_token_text(text), word_text(text)):
        assert shown
        assert all(cell_len(c) > 0 for c in shown)
        assert not any(unicodedata.category(c) in {"Cc", "Cf", "Cs"} for c in shown)
    assert safe_token_text(text, ascii_only=True).isascii()


@given(st.text(max_size=30), st.integers(0, 30))
def test_fit_is_exact(text: str, width: int) -> None:
    assert cell_len(fit(safe_token_text(text), width)) == width


def test_plain_text_is_left_alone() -> None:
    assert safe_token_text(" London") == " London"
    assert word_text(" London") == "London"
    assert safe_token_text("naïve") == "naïve"
    assert safe_token_text("[bold]x[/bold]") == "[bold]x[/bold]"
