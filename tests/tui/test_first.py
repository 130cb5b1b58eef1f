"""The picture that stands before the app is loaded: the app's own first frame; and the terminal comes back well."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import struct
import sys
import termios
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.color import ColorSystem
from rich.console import Console
from textual.strip import Strip

from benchmarks.app import take
from benchmarks.picture import Picture
from tests.service.conftest import wait_until
from tests.tui.place import Place, until
from wbtui.address import Address
from wbtui.notes.store import NoteStore, site_of
from wbtui.service.start import with_package
from wbtui.tui import picture_before
from wbtui.tui import state as st
from wbtui.tui.data import Early, arrange, open_address, save_session
from wbtui.tui.direct import strip_text
from wbtui.tui.keymap import use
from wbtui.tui.plain import use_ascii
from wbtui.tui.screens.main import MainScreen
from wbtui.tui.widgets.lines import Drawn

SIZES = [(80, 24), (120, 40), (200, 50), (99, 31), (60, 20)]
SYSTEMS = {
    "truecolor": ColorSystem.TRUECOLOR, "256": ColorSystem.EIGHT_BIT, "standard": ColorSystem.STANDARD,
}  # fmt: skip
WITHIN = 30.0


@pytest.fixture
def usual() -> Iterator[None]:
    """ASCII and keys as they were."""
    yield
    use_ascii(False)
    use({})


@contextlib.contextmanager
def terminal_of(system: str) -> Iterator[None]:
    """The environment in which a terminal has so many colours."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERM", "xterm" if system == "standard" else "xterm-256color")
        patch.setenv("COLORTERM", "truecolor" if system == "truecolor" else "")
        yield


def written(strip: Strip, system: ColorSystem) -> str:
    """A strip as Textual writes it to a terminal of so many colours. Styles keep what they were for another one."""
    kept = [(style, style._ansi) for _, style, _ in strip if style is not None]
    for style, _ in kept:
        style._ansi = None
    text = strip_text(strip, system)
    for style, ansi in kept:
        style._ansi = ansi
    return text


async def first_frame(
    app: Any, size: tuple[int, int], system: ColorSystem, monkeypatch: pytest.MonkeyPatch
) -> tuple[Picture, st.View]:
    """What the app's widgets draw when the first rows are there, at the places that Textual gives them."""
    monkeypatch.setattr(MainScreen, "_after_first_picture", lambda self: None)
    picture = Picture(*size)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.main is not None and app.main.arranged is not None)
        await pilot.pause()
        assert app.main is not None
        for widget, (region, _) in app.screen._compositor.visible_widgets.items():
            if isinstance(widget, Drawn):
                for y, strip in enumerate(widget.render_lines(region.reset_offset)):
                    picture.feed(f"\x1b[{region.y + y + 1};{region.x + 1}H\x1b[0m{written(strip, system)}\x1b[0m")
        return picture, app.main.view


def before(
    place: Place,
    address: Address,
    view: st.View,
    size: tuple[int, int],
    *,
    at_top: bool,
    system: str = "truecolor",
    **more: Any,
) -> Picture:
    """What stands before the app."""
    opened = open_address(address, place.cache, place.definition)
    picture = Picture(*size)
    arranged = arrange(opened.table, view.filter, view.sort)
    with terminal_of(system):
        text = picture_before.page(opened, arranged, view, size, at_top=at_top, **more)
    assert text
    picture.feed(text)
    return picture


@pytest.mark.usefixtures("usual")
@pytest.mark.parametrize(
    ("size", "system", "look", "ascii"),
    [
        *((size, "truecolor", "dark", False) for size in SIZES),
        ((120, 40), "truecolor", "light", False),
        ((80, 24), "256", "light", False),
        ((120, 40), "256", "dark", True),
        ((120, 40), "standard", "auto", False),
        ((80, 24), "truecolor", "ansi", True),
        ((120, 40), "truecolor", "mono", False),
    ],
)
async def test_it_is_the_first_frame_of_the_app(
    ready: Place,
    size: tuple[int, int],
    system: str,
    look: str,
    ascii: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = ready.address()
    app = ready.app(address, color_system=system, look=look, ascii=ascii)
    frame, _ = await first_frame(app, size, SYSTEMS[system], monkeypatch)
    mine = before(
        ready, address, st.start(address.model, "L1", None), size, at_top=True, system=system, look=look, ascii=ascii
    )
    assert mine.text == frame.text
    assert mine.seen() == frame.seen()
    assert any(line.strip() for line in mine.text.splitlines()[5:10])


@pytest.mark.usefixtures("usual")
async def test_without_colour_it_is_the_same_too(ready: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "")
    address = ready.address("L2", 17)
    frame, view = await first_frame(ready.app(address), (120, 40), ColorSystem.TRUECOLOR, monkeypatch)
    mine = before(ready, address, st.start(address.model, "L2", 17), (120, 40), at_top=False)
    assert view.cursor == 17
    assert mine.text == frame.text
    assert mine.seen() == frame.seen()
    assert not any("text" in pen or "back" in pen for line in mine.cells for _, pen in line)


@pytest.mark.usefixtures("usual")
@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_a_place_that_one_comes_back_to(
    ready: Place, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Filter, order, columns, cursor, raw tokens, the card in focus; marks and tags of the user's own."""
    table = open_address(ready.address(), ready.cache, ready.definition).table
    notes = NoteStore()
    some = arrange(table, "#>20", (("writes.z_max", False),)).rows
    assert some is not None
    cursor = int(some.order[40])
    notes.set_tags(site_of(table.origin), cursor, ("seen",))
    notes.set_marks(site_of(table.origin), [cursor], [])
    view = replace(
        st.start(str(ready.model), "L1", cursor),
        filter="#>20", sort=(("writes.z_max", False), ("id", True)), tokens=True, focus="card",
        columns=("id", "writes", "writes.z_max", "selfcos"),
    )  # fmt: skip
    app = ready.app(None, resume=view)
    frame, shown = await first_frame(app, size, ColorSystem.TRUECOLOR, monkeypatch)
    mine = before(ready, Address(view.model, view.sae, cursor), view, size, at_top=False)
    assert shown.cursor == cursor
    assert shown.extra == ("tags",)
    assert mine.text == frame.text
    assert mine.seen() == frame.seen()
    assert f"#{cursor}" in mine.text.splitlines()[0]


@pytest.mark.usefixtures("usual")
@pytest.mark.parametrize("ascii", [False, True])
async def test_tokens_that_break_screens(hostile: Place, ascii: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    address = hostile.address()
    app = hostile.app(address, ascii=ascii)
    frame, _ = await first_frame(app, (120, 40), ColorSystem.TRUECOLOR, monkeypatch)
    mine = before(hostile, address, st.start(address.model, "L1", None), (120, 40), at_top=True, ascii=ascii)
    assert mine.text == frame.text
    assert mine.seen() == frame.seen()


@pytest.mark.parametrize("term", ["xterm", "xterm-256color", "xterm-kitty", "linux-16color", "vt100"])
@pytest.mark.parametrize("colours", ["", "truecolor", "24bit", "yes"])
def test_colours_are_told_as_rich_tells_them(term: str, colours: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("COLORTERM", colours)
    system = picture_before.color_system()
    assert picture_before.NAMES[system] == Console(force_terminal=True).color_system


# In a terminal -------------------------------------------------------------------------------------------------------

STOPS = """
import sys

class Gate:
    def find_spec(self, name, path=None, target=None):
        if name == "wbtui.tui.app":
            loaded = [m for m in ("textual", "textual.app", "asyncio") if m in sys.modules]
            open({report!r}, "w").write(" ".join(loaded) or "none")
            {then}

sys.meta_path.insert(0, Gate())
"""
RUN = "from wbtui.start import main; main()"
SIZE = (100, 30)
HANG = "import select; select.select([], [], [])"
FAIL = "raise ValueError('no such luck')"


class Session:
    """``wbtui ADDRESS`` behind a pseudo-terminal."""

    def __init__(self, place: Place, code: str, size: tuple[int, int] = SIZE) -> None:
        save_session(st.start(str(place.model), "L1", 3))  # not a first visit
        self.ours, theirs = pty.openpty()
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        self.attributes = termios.tcgetattr(theirs)
        self.theirs = theirs
        env = with_package(dict(os.environ)) | {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
        env["WBTUI_CACHE_DIR"] = str(place.cache)
        for name in ("COLUMNS", "LINES"):
            env.pop(name, None)
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
            for fd in (0, 1, 2):
                os.dup2(theirs, fd)
            os.execve(sys.executable, [sys.executable, "-c", code, str(place.address())], env)
        self.output = b""
        self.size = size
        self.code: int | None = None

    def read(self, wait: float = 0.05) -> bool:
        """Take in what is there."""
        data = take(self.ours, wait)
        self.output += data
        return bool(data)

    def until(self, condition: Any) -> None:
        """Read until something holds."""

        def holds() -> bool:
            self.read()
            return bool(condition())

        wait_until(holds, WITHIN)

    @property
    def picture(self) -> Picture:
        """What is on screen now."""
        return shown(self.output, self.size)

    def end(self) -> int:
        """Wait for the end; the exit status (negative: the signal)."""

        def ended() -> bool:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
            return pid != 0

        self.until(ended)
        while self.read():
            pass
        assert self.code is not None
        return self.code

    def close(self) -> None:
        """Nothing is left behind."""
        if self.code is None:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
        os.close(self.ours)
        os.close(self.theirs)


def stopped(report: Path, then: str) -> str:
    """Code of a session that comes no further than to the import of the app."""
    return STOPS.format(report=str(report), then=then) + RUN


def shown(output: bytes, size: tuple[int, int]) -> Picture:
    """What some output leaves on a blank screen."""
    picture = Picture(*size)
    picture.feed(output)
    return picture


def picture_of(place: Place) -> Picture:
    """What stands before the app in the sessions of these tests."""
    address = place.address()
    return before(place, address, st.start(address.model, "L1", None), SIZE, at_top=True)


@pytest.mark.usefixtures("usual")
@pytest.mark.parametrize(
    ("then", "by", "code", "says"),
    [
        (HANG, b"\x03", 130, "interrupted"),
        (HANG, signal.SIGTERM, -signal.SIGTERM, ""),
        (FAIL, None, 1, "no such luck"),
    ],
)
def test_a_start_that_goes_no_further_gives_the_terminal_back(
    ready: Place,
    tmp_path: Path,
    then: str,
    by: bytes | signal.Signals | None,
    code: int,
    says: str,
) -> None:
    standing = picture_of(ready)
    report = tmp_path / "report"
    session = Session(ready, stopped(report, then))
    try:
        session.until(lambda: report.exists() and report.read_text())
        assert report.read_text() == "none", "the picture does without Textual and asyncio"
        if by is not None:
            lflag = termios.tcgetattr(session.theirs)[3]
            assert not lflag & termios.ECHO
            assert lflag & termios.ISIG
            os.write(session.ours, b"jj")
        if isinstance(by, bytes):
            os.write(session.ours, by)
        elif by is not None:
            os.kill(session.pid, by)
        assert session.end() == code
        assert session.output.count(b"\x1b[?1049h") == session.output.count(b"\x1b[?1049l") == 1
        page, _, rest = session.output.partition(b"\x1b[?1049l")
        assert shown(page, session.size).seen() == standing.seen(), "it stood, and keys were not echoed"
        assert rest.startswith(b"\x1b[?25h")
        assert says in rest.decode()
        assert says or rest == b"\x1b[?25h"
        assert termios.tcgetattr(session.theirs) == session.attributes
    finally:
        session.close()


@pytest.mark.usefixtures("usual")
def test_the_app_comes_over_its_picture_and_takes_the_keys_that_were_typed_at_it(ready: Place, tmp_path: Path) -> None:
    standing = picture_of(ready)
    gate, report = tmp_path / "gate", tmp_path / "report"
    os.mkfifo(gate)
    session = Session(ready, stopped(report, f"open({str(gate)!r}).read()"))
    try:
        session.until(report.exists)
        os.write(session.ours, b"jj")  # to the second row below the first
        with open(gate, "w"):
            pass  # go on
        session.until(lambda: b"\x1b[?2026l" in session.output)
        start, begin, rest = session.output.partition(b"\x1b[?2026h")
        frame = begin + rest.partition(b"\x1b[?2026l")[0]
        assert session.output.count(b"\x1b[?1049h") == 1, "the other screen is entered once"
        assert not any(clear in session.output for clear in (b"\x1b[2J", b"\x1b[J", b"\x1b[3J", b"\x1b[H", b"\x1bc"))
        assert shown(start, session.size).seen() == standing.seen(), "nothing is echoed, or drawn before the app"
        assert shown(frame, session.size).seen() == standing.seen(), "the first frame is the picture"
        rows = standing.text.split("\n")[4:7]
        third = rows[2].split()[0]
        assert rows[0].startswith("▸")
        session.until(lambda: f"#{third} " in session.picture.text.split("\n")[0])
        os.write(session.ours, b"\x03")
        assert session.end() == 0
        assert session.output.count(b"\x1b[?1049l") == 1
        assert termios.tcgetattr(session.theirs) == session.attributes
    finally:
        session.close()


def test_a_terminal_resized_meanwhile_gets_a_whole_frame(ready: Place, tmp_path: Path) -> None:
    gate, report = tmp_path / "gate", tmp_path / "report"
    os.mkfifo(gate)
    session = Session(ready, stopped(report, f"open({str(gate)!r}).read()"))
    try:
        session.until(report.exists)
        session.size = (120, 36)
        fcntl.ioctl(session.ours, termios.TIOCSWINSZ, struct.pack("HHHH", 36, 120, 0, 0))
        with open(gate, "w"):
            pass
        session.until(lambda: "tokens ready" in (session.picture.text + "\n" * 36).split("\n")[35])
        os.write(session.ours, b"\x03")
        assert session.end() == 0
    finally:
        session.close()


@pytest.mark.parametrize("why", ["first visit", "small", "slow line", "dumb", "another page", "missing"])
def test_what_is_out_of_the_ordinary_is_left_to_the_app(
    ready: Place, tmp_path: Path, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wbtui.tui import first, run

    taken: list[str] = []
    monkeypatch.setattr(first.First, "_take", lambda self, text: taken.append(text))
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((59, 30) if why == "small" else (100, 30)))
    monkeypatch.setenv("TERM", "dumb" if why == "dumb" else "xterm-256color")
    if why == "slow line":
        monkeypatch.setenv("WBTUI_LINE_KBIT", "300")
    if why != "first visit":
        save_session(st.start(str(ready.model), "L1", 3))
    sae = "L0" if why == "missing" else "L1"
    early = Early(ready.address(sae), ready.cache, ready.definition, "", st.FIRST_SORT)
    early.result()
    view = replace(st.start(str(ready.model), sae, 3), page="card") if why == "another page" else None
    run.show_before(first.First(), early, view, ((), ()))
    assert not taken


def test_keys_that_have_waited_for_the_rows_come_when_they_are_let_in() -> None:
    """However long that took: whoever waits for a key's answer goes by its time."""
    from textual import events
    from textual._time import get_time

    from wbtui.tui.first import First

    first, sent = First(), list[Any]()
    first.keep_back()
    keys = [events.Key(name, name) for name in "ab"]
    for key in keys:
        key.time -= 1000.0
        assert first.keeps(sent.append, key)
    now = get_time()
    first.let_in()
    assert sent == keys and all(key.time >= now for key in keys)
    assert not first.keeps(sent.append, keys[0])
