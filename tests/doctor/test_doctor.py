"""What the doctor says of terminals and machines that are not ours; and copying, by every route."""

from __future__ import annotations

import json
import os
import pty
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from wbtui.cli import main
from wbtui.doctor import machine, terminal
from wbtui.notes.store import NoteStore
from wbtui.tui import clipboard


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Folders of the test's own."""
    for name in ("CACHE", "DATA", "CONFIG", "LOG", "RUNTIME"):
        monkeypatch.setenv(f"WBTUI_{name}_DIR", str(tmp_path / name.lower()))
    for name in ("TMUX", "NO_COLOR", "WBTUI_COPY", "WBTUI_COPY_BYTES"):
        monkeypatch.delenv(name, raising=False)


def test_colours_are_named_with_the_look_that_they_give() -> None:
    assert terminal.colours("truecolor", {}, "dark").state == "ok"
    assert "look: dark" in terminal.colours("truecolor", {}, "dark").found
    few = terminal.colours("standard", {"TERM": "xterm"}, "dark")
    assert (few.state, "16 (TERM='xterm'" in few.found) == ("warn", True)


def test_widths_name_the_glyph_that_the_terminal_draws_otherwise() -> None:
    assert terminal.widths(None).state == "note"
    right = {"●": 1, "東": 2, "e\u0301": 1}
    assert terminal.widths(right).state == "ok"
    wrong = terminal.widths({**right, "●": 2})
    assert wrong.state == "warn"
    assert "'●' takes 2, reckoned 1" in wrong.found
    assert "--ascii" in wrong.do


def test_widths_are_asked_of_the_terminal_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of our own that draws every glyph two cells wide."""
    ours, theirs = pty.openpty()

    def answer() -> None:
        for _ in terminal.GLYPHS:
            seen = b""
            while not seen.endswith(b"\x1b[6n"):
                seen += os.read(ours, 1)
            os.write(ours, b"\x1b[7;3R")

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    with os.fdopen(os.dup(theirs), "w") as out, os.fdopen(os.dup(theirs)) as inside:
        monkeypatch.setattr(sys, "stdin", inside)
        monkeypatch.setattr(sys, "stdout", out)
        assert terminal.measure(within=20) == dict.fromkeys(terminal.GLYPHS, 2)
    thread.join(20)


def test_tmux_options() -> None:
    answers = {
        "-V": "tmux 3.4",
        "set-clipboard": "off",
        "escape-time": "500",
        "default-terminal": "screen",
        "mouse": "on",
    }
    checks = {c.name: c for c in terminal.tmux({"TMUX": "x"}, lambda words: answers.get(words[-1]))}
    assert checks["tmux"].found == "tmux 3.4"
    assert [n for n, c in checks.items() if c.state == "warn"] == [
        "tmux set-clipboard", "tmux escape-time", "tmux default-terminal",
    ]  # fmt: skip
    assert "set-clipboard on" in checks["tmux set-clipboard"].do
    assert terminal.tmux({}, lambda words: pytest.fail("asked")) == []


@pytest.mark.parametrize(
    ("code", "state", "words"),
    [
        ('print(\'{"torch": "2", "cuda_build": null, "threads": 2, "devices": []}\')', "note", "CPU"),
        ('print(\'{"torch": "2", "cuda_build": "12", "threads": 2, "devices": [{"name": "cuda:0", "what": "H100", '
         '"free": 1073741824, "total": 2147483648}]}\')', "ok", "1.0 of 2.0 GiB free"),
        ("raise ImportError('no torch here')", "bad", "no torch here"),
        ("import signal; signal.pause()", "bad", "no answer"),
    ],
)  # fmt: skip
def test_devices_are_asked_in_another_process(code: str, state: str, words: str) -> None:
    checks = machine.devices([sys.executable, "-c", code], within=0.5 if "pause" in code else 60)
    assert checks[-1].state == state
    assert words in checks[-1].found


def test_one_json_object_and_the_exit_code_follow_what_is_bad(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["doctor", "--json", "--no-devices"]) == 0
    checks = {c["name"]: c for c in json.loads(capsys.readouterr().out)["checks"]}
    assert checks["notes"]["found"] == "none yet"
    assert checks["service"]["state"] == "note"
    assert set(checks) >= {"config.toml", "colours", "encoding", "widths", "clipboard", "cache", "cache_dir"}
    NoteStore().path.parent.mkdir(parents=True)
    NoteStore().path.write_bytes(b"no database" * 100)
    assert main(["doctor", "--no-devices"]) == 1
    assert "BAD   notes" in capsys.readouterr().out
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.toml").write_text("teme = 1")
    assert main(["doctor", "--no-devices"]) == 1
    assert "expected 'theme'" in capsys.readouterr().out


# -- copying -----------------------------------------------------------------------------------------------------------


class Screen:
    copied = ""

    def copy_to_clipboard(self, text: str) -> None:
        self.copied = text


async def test_the_terminal_up_to_a_cap_then_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    app: Any = Screen()
    assert await clipboard.copy_text(app, "demo@L3#1") == "to the terminal's clipboard (OSC 52)"
    assert app.copied == "demo@L3#1"
    said = await clipboard.copy_text(app, "x" * 60_000)
    assert app.copied == "demo@L3#1"
    assert said == f"to {tmp_path / 'data' / 'copied.txt'}: 80,000 bytes are too many for the terminal"
    assert (tmp_path / "data" / "copied.txt").read_text() == "x" * 60_000
    assert (tmp_path / "data" / "copied.txt").stat().st_mode & 0o077 == 0
    monkeypatch.setenv("WBTUI_COPY", "file")
    assert await clipboard.copy_text(app, "y\ud800") == f"to {tmp_path / 'data' / 'copied.txt'}"
    assert (tmp_path / "data" / "copied.txt").read_text() == "y?"


@pytest.mark.parametrize(("code", "said"), [(0, "tmux buffer"), (1, "OSC 52")])
async def test_tmux_inside_tmux_and_where_it_refuses_the_terminal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int, said: str
) -> None:
    fake = tmp_path / "bin" / "tmux"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/words\ncat > {tmp_path}/text\nexit {code}\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("TMUX", "/tmp/x,1,0")
    app: Any = Screen()
    assert said in await clipboard.copy_text(app, "é")
    assert (tmp_path / "words").read_text() == "load-buffer -w -\n"
    assert (tmp_path / "text").read_text() == "é"
    assert app.copied == ("" if code == 0 else "é")


def test_what_workers_measured_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WBTUI_CACHE_DIR", str(tmp_path))
    assert machine.kernels() == []
    (tmp_path / "machine").mkdir()
    data = {"product": "bf16", "onednn": True, "threads": 4, "gflops": {"fp32": 90.2, "bf16": 400}}
    (tmp_path / "machine" / "cpu-0123.json").write_text(json.dumps(data))
    (tmp_path / "machine" / "cuda-0123.json").write_text("[]")
    good, bad = machine.kernels()
    assert (good.name, good.found) == ("products cpu", "bf16, oneDNN, 4 threads of fp32 90, bf16 400 GFLOP/s")
    assert bad.state == "note"
