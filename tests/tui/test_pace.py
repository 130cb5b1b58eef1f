"""Frames keep to what a slow line carries."""

from __future__ import annotations

from typing import Any

import pytest

from tests.tui.place import Place, screen_text, settled, until
from wbtui import settings
from wbtui.tui.pace import SLACK, Pace, counted
from wbtui.tui.slim import BEGIN, END, slim_driver


def test_a_line_is_open_again_once_it_has_carried_nearly_all() -> None:
    pace = Pace(1000)  # 125 kB/s
    pace.wrote(5_000, now=10.0)
    assert pace.open(now=10.0), "40 ms may be under way"
    pace.wrote(5_000, now=10.0)
    assert not pace.open(now=10.0)
    assert not pace.open(now=10.0 + 0.08 - SLACK - 0.001)
    assert pace.open(now=10.0 + 0.08 - SLACK + 0.001)
    pace.wrote(1, now=99.0)
    assert pace.open(now=99.0), "what an idle line did not carry is not saved up"


def test_a_terminal_of_this_machine_never_waits() -> None:
    pace = Pace(0)
    pace.wrote(10**9, now=1.0)
    assert pace.open(now=1.0)


@pytest.mark.parametrize("kbit", [0.0, 1000.0])
def test_the_same_frame_is_written_and_counted_once(kbit: float) -> None:
    """WHEN a frame is drawn again with none between THEN it goes once; after another again."""
    wrote: list[str] = []

    class Terminal:
        def write(self, data: str) -> None:
            wrote.append(data)

    pace = Pace(kbit)
    driver: Any = slim_driver(counted(Terminal, pace))()
    first, other = "\x1b[1;1Hone", "\x1b[1;1Htwx"
    for data in (BEGIN, first, END, BEGIN, first, END, other, first):
        driver.write(data)
    assert wrote == [BEGIN + first + END, other, first]
    assert pace.open() is (kbit == 0 or sum(map(len, wrote)) / pace.bytes_per_second <= SLACK)


@pytest.mark.parametrize(("name", "want"), [("SSH_CONNECTION", 1000), ("SSH_TTY", 1000), ("HOME", 0)])
def test_over_ssh_the_line_is_taken_as_one_megabit(name: str, want: float, monkeypatch: pytest.MonkeyPatch) -> None:
    for there in ("SSH_CONNECTION", "SSH_TTY", "WBTUI_LINE_KBIT"):
        monkeypatch.delenv(there, raising=False)
    monkeypatch.setenv(name, "x")
    assert settings.get("line_kbit") == want
    monkeypatch.setenv("WBTUI_LINE_KBIT", "250")
    assert settings.get("line_kbit") == 250


async def test_what_changes_while_the_line_is_busy_is_drawn_in_one(ready: Place) -> None:
    """WHEN the line is behind THEN nothing is drawn, keys work on, and one frame shows where they led."""
    app = ready.app(ready.address("L1"), line_kbit=1000)
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        drawn = []
        refresh = main._compositor_refresh
        main._compositor_refresh = lambda: (drawn.append(main.view.cursor), refresh())  # type: ignore[method-assign]
        way_open = app.pace.open
        app.pace.open = lambda now=None: False  # type: ignore[method-assign]
        first = main.view.cursor
        for _ in range(5):
            app.simulate_key("j")
        await until(pilot, lambda: main.view.cursor != first and main.rows.position(main.view.cursor) == 5)
        assert drawn == []
        app.pace.open = way_open  # type: ignore[method-assign]
        await until(pilot, lambda: drawn)
        assert drawn[0] == main.view.cursor
        assert f"#{main.view.cursor}" in screen_text(app)
