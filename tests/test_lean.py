"""GIVEN a start that leaves modules out THEN they are not loaded, and each is the real one as soon as it is used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wbtui import start
from wbtui.errors import ServiceError, UsageError

LEFT_OUT = """
import sys
from wbtui.lean import without_palette, without_tls, without_types
with without_types():
    import numpy as np
with without_palette(), without_tls():
    import textual.app
out = ("textual.command", "textual.widgets._option_list", "textual.types", "ssl", "numpy._typing")
assert not [name for name in out if name in sys.modules], sorted(sys.modules)
assert np.linalg.eigh(np.eye(2)).eigenvalues.tolist() == [1, 1]
from textual.command import CommandPalette
assert textual.app.CommandPalette.is_open == CommandPalette.is_open
assert isinstance(textual.app.CommandPalette(id="x"), CommandPalette)
import ssl, numpy.typing
assert ssl.create_default_context() and numpy.typing.NDArray[np.float32] and numpy._typing.NDArray is not dict
"""
PALETTE = """
import asyncio, sys
from pathlib import Path
from wbtui.late import late_methods
from wbtui.lean import without_palette, without_tls
from wbtui.tui.run import opened_app
with late_methods(), without_palette(), without_tls():
    app = opened_app(None, Path({cache!r}), "folded")
assert "textual.command" not in sys.modules
async def look():
    async with app.run_test(size=(120, 40)) as pilot:
        app.screen.action_palette()
        await pilot.pause()
        from textual.command import CommandPalette
        assert isinstance(app.screen, CommandPalette), app.screen
asyncio.run(look())
"""


def python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run some code in a process of its own."""
    env = os.environ | {"PYTHONPATH": os.getcwd()} | variables
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, env=env)


def test_what_is_left_out_is_there_when_it_is_used() -> None:
    done = python(LEFT_OUT)
    assert done.returncode == 0, done.stderr


def test_the_app_so_started_has_its_palette(tmp_path: Path) -> None:
    places = {f"WBTUI_{name}_DIR": str(tmp_path / name) for name in ("DATA", "CONFIG", "RUNTIME", "LOG")}
    done = python(PALETTE.format(cache=str(tmp_path / "cache")), **places)
    assert done.returncode == 0, done.stderr


def test_an_address_alone_goes_to_the_app_past_the_parser() -> None:
    code = "import sys; from wbtui.start import main; print(main(['demo@L3']), {'click', 'textual'} & set(sys.modules))"
    done = python(code)
    assert done.stdout == "2 set()\n", done.stdout + done.stderr
    assert done.stderr.startswith("wbtui: no terminal on ") and "`wbtui show 'demo@L3' --json`" in done.stderr


@pytest.mark.parametrize(
    ("words", "alone"),
    [
        ([], True), (["demo"], False), (["demo@L3"], True), (["./a folder@L1#3"], True), (["--fresh"], False),
        (["-h"], False), (["show"], False), (["demo@L3", "--ascii"], False), (["google/gemma-2-2b", "L3"], False),
    ],
)  # fmt: skip
def test_what_is_more_than_an_address_is_parsed(words: list[str], alone: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(start.COMPLETION, raising=False)
    assert start.app_alone(words) is alone
    monkeypatch.setenv(start.COMPLETION, "bash_source")
    assert not start.app_alone(words)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UsageError("a", "b"), 2, "wbtui: a; expected b\n"),
        (ServiceError("no service"), 3, "wbtui: no service\n"),
        (KeyboardInterrupt(), 130, "wbtui: interrupted\n"),
        (ValueError("why"), 1, "wbtui: a fault in wbtui itself: ValueError: why; the traceback is in {log}\n"),
    ],
)
def test_what_goes_wrong_is_one_line(
    error: BaseException,
    code: int,
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WBTUI_LOG_DIR", str(tmp_path))

    def fail() -> int:
        raise error

    assert start.guarded(fail) == code
    assert capsys.readouterr().err == line.format(log=tmp_path / "crash.log")
