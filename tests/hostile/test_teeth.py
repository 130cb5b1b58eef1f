"""The tests of this folder can fail: with the display function taken away from one place, what is drawn there leaks."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from tests.hostile import test_commands, test_screens
from tests.hostile.made import Hostile
from tests.hostile.test_commands import Run
from wbtui.tui import keymap

pytestmark = pytest.mark.faults

SCREENS = {
    "wbtui.tui.draw.near": "near", "wbtui.tui.draw.match": "match", "wbtui.tui.screens.match": "match",
    "wbtui.tui.draw.answer": "answer", "wbtui.tui.draw.frame": "main", "wbtui.tui.shelf": "start",
    "wbtui.tui.screens.start": "start", "wbtui.tui.screens.jobs": "jobs", "wbtui.tui.screens.depth": "depth",
    "wbtui.tui.draw.card": "main", "wbtui.features.vocabulary": "main", "wbtui.tui.draw.note": "main",
}  # fmt: skip
"""Module whose ``safe_token_text`` is taken away -> the screen on which that shows."""
COMMANDS = (
    ("wbtui.cli", "safe_lines"), ("wbtui.cli.common", "safe_lines"), ("wbtui.cli.common", "safe_token_text"),
    ("wbtui.cli.common", "json_text"), ("wbtui.features.export", "file_text"), ("wbtui.features.export", "json_text"),
    ("wbtui.features.answers", "json_text"), ("wbtui.notes.exchange", "json_text"),
    ("wbtui.features.match_files", "json_text"), ("wbtui.features.flow_text", "safe_token_text"),
    ("wbtui.features.steering", "file_text"), ("wbtui.report.data", "safe_token_text"),
    ("wbtui.report.page", "safe_token_text"),
)  # fmt: skip
"""(module, name of the function)."""


def same(text: str, **_: Any) -> str:
    """What stands in place of the function."""
    return text


@pytest.mark.parametrize("module", list(SCREENS))
async def test_a_screen_leaks(hostile: Hostile, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module(module), "safe_token_text", same)
    if module == "wbtui.features.vocabulary":
        monkeypatch.setattr(importlib.import_module(module), "word_text", same)
    keys = [key for key in keymap.CONTEXTS[SCREENS[module]] if key.id not in test_screens.LEAVE]
    with pytest.raises(AssertionError):
        await test_screens.press_and_look(hostile, SCREENS[module], keys)


async def test_the_comparison_leaks(hostile: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wbtui.tui.draw.compare.safe_token_text", same)
    with pytest.raises(AssertionError):
        await test_screens.test_views_that_no_opener_leads_to(hostile)


@pytest.mark.parametrize(("module", "name"), COMMANDS)
def test_a_command_leaks(
    hostile: Hostile, run: Run, tmp_path: Path, module: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    plain: Any = same
    if name == "json_text":
        plain = lambda data, indent=None: json.dumps(data, indent=indent, ensure_ascii=False)  # noqa: E731
    monkeypatch.setattr(importlib.import_module(module), name, plain)
    with pytest.raises((AssertionError, UnicodeError)):
        every_command(hostile, run, tmp_path)


def every_command(hostile: Hostile, run: Run, tmp_path: Path) -> None:
    test_commands.test_what_was_typed_comes_back_safe(hostile, run)
    test_commands.test_every_command(hostile, run, tmp_path)
    test_commands.test_every_file(hostile, run, tmp_path)


run = test_commands.run
