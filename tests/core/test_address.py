"""The address string: MODEL[@SAE[#FEATURE]]."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wbtui.address import Address, is_path, parse_address
from wbtui.errors import UsageError


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("demo", Address("demo")),
        ("demo@L3", Address("demo", "L3")),
        ("demo@L3#120", Address("demo", "L3", 120)),
        ("google/gemma-2-2b:main@layer_3/width_16k#0", Address("google/gemma-2-2b:main", "layer_3/width_16k", 0)),
        ("./my@model@L3#7", Address("./my@model", "L3", 7)),
        ("./my%40model", Address("./my@model")),
        ("./odd%23name@x%25y#3", Address("./odd#name", "x%y", 3)),
        ("./issue#draft@L3", Address("./issue#draft", "L3")),
        ("  demo@L3#1 ", Address("demo", "L3", 1)),
    ],
)
def test_parses(text: str, want: Address) -> None:
    assert parse_address(text) == want


@pytest.mark.parametrize(
    "text", ["", "  ", "@L3", "demo@", "demo#3", "demo@L3#", "demo@#3", "de\x1bmo", "demo@L3#" + "9" * 40]
)
def test_refuses(text: str) -> None:
    with pytest.raises(UsageError):
        parse_address(text)


names = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_characters="\x7f"), min_size=1).filter(
    lambda s: s == s.strip()
)


@given(names, st.none() | names, st.none() | st.integers(0, 10**9))
def test_round_trip(model: str, sae: str | None, feature: int | None) -> None:
    if any(ord(c) < 32 or ord(c) == 127 for c in model + (sae or "")):
        return
    address = Address(model, sae, feature if sae is not None else None)
    assert parse_address(str(address)) == address


@given(st.text(max_size=40))
def test_any_text_parses_or_is_refused(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert parse_address(text).model


def test_paths_are_told_from_names() -> None:
    assert all(is_path(p) for p in ("/a", "./a", "../a", "~/a", "."))
    assert not any(is_path(p) for p in ("demo", "google/gemma-2-2b", "L3", ".hidden/x"))
