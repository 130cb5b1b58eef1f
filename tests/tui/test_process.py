"""What the app's process loads, and what it does without a terminal."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tui.place import Place
from wbtui.errors import UsageError
from wbtui.tui import data, run

HEAVY = ("torch", "transformers", "sae_lens", "scipy", "wbtui.sources", "wbtui.analysis", "wbtui.compute", "pandas")

SCRIPT = """
import asyncio, sys
from pathlib import Path
from wbtui.tui.run import make_screenshot
make_screenshot({address!r}, (120, 40), Path({out!r}), ["j", "enter", "escape", "D", "escape", "question_mark"],
                cache=Path({cache!r}), wait=False)
heavy = [name for name in {heavy!r} if name in sys.modules]
print("HEAVY", heavy)
"""


def test_the_app_never_loads_what_is_heavy(ready: Place, tmp_path: Path) -> None:
    out = tmp_path / "app.svg"
    script = SCRIPT.format(address=str(ready.address()), out=str(out), cache=str(ready.cache), heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=100,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    )
    assert "HEAVY []" in done.stdout, done.stdout + done.stderr
    assert out.stat().st_size > 10_000


def test_a_picture_places_every_word(ready: Place, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "app.svg"
    run.make_screenshot(str(ready.address()), (80, 24), out, cache=ready.cache, wait=False)
    svg = out.read_text()
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "").replace("https://www.textualize.io", "")
    assert "textLength" not in svg
    assert ">tokens<" in svg or ">tokens</tspan>" in svg


def test_wrong_addresses_fail_before_the_screen_is_taken(ready: Place) -> None:
    with pytest.raises(UsageError, match="0 to 599"):
        data.checked_address(f"{ready.model}@L1#600")
    with pytest.raises(UsageError, match="no SAE"):
        data.checked_address(f"{ready.model}@L7-x")
    with pytest.raises(UsageError):
        data.checked_address("nonsense@@")
    assert data.checked_address(None) is None


class Stream(io.StringIO):
    """A stream that is a terminal, or is not."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def test_without_a_terminal_the_app_says_what_to_use(ready: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(f"sys.{name}", Stream(True))
    assert run.without_terminal() == ""
    monkeypatch.setattr("sys.stderr", Stream(False))
    with pytest.raises(UsageError, match="no terminal on stderr"):
        run.run_app(str(ready.address()), cache=ready.cache)
    monkeypatch.setattr("sys.stdin", Stream(False))
    assert run.without_terminal() == "stdin and stderr"


def test_waiting_for_numbers_that_cannot_come_is_an_error(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.tui.place import FakeClient
    from wbtui.errors import ServiceError, WbtuiError
    from wbtui.tui import app as app_module

    fake = FakeClient(refuse=ServiceError("no service came up"))
    real = app_module.WbtuiApp
    monkeypatch.setattr(app_module, "WbtuiApp", lambda *a, **k: real(*a, **{**k, "make_client": fake.made}))
    with pytest.raises(WbtuiError, match="not computed"):
        run.make_screenshot(str(place.address()), (80, 24), tmp_path / "x.svg", cache=place.cache)


def test_what_the_app_starts_has_the_threads_that_the_user_set() -> None:
    script = (
        "import os; from wbtui.tui.run import numpy_alone; numpy_alone(); print(os.environ.get('OPENBLAS_NUM_THREADS'))"
    )
    for value in (None, "3"):
        env = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"} | (
            {} if value is None else {"OPENBLAS_NUM_THREADS": value}
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, env=env, check=True
        )
        assert done.stdout.strip() == str(value)
