"""Running the app: in a terminal, or without one to take a picture."""

from __future__ import annotations

import gc
import os
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wbtui import paths, settings
from wbtui.errors import TimedOut, UsageError, WbtuiError
from wbtui.late import late_methods
from wbtui.lean import without_palette, without_tls, without_types

if TYPE_CHECKING:
    from textual.pilot import Pilot

    from wbtui.address import Address
    from wbtui.definitions import TokensDefinition
    from wbtui.tui.app import WbtuiApp
    from wbtui.tui.data import Early
    from wbtui.tui.first import First
    from wbtui.tui.state import SortKey, View

SETTLED_WITHIN = 120.0
"""Seconds until a picture is taken of whatever is there."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""Names of glibc's ``malloc.h``."""
BLAS_THREADS = "OPENBLAS_NUM_THREADS"
DOCUMENTS = ("numpy._core._add_newdocs", "numpy._core._add_newdocs_scalars")
"""Modules of numpy that only write docstrings on its functions."""
FRAMES_PER_SECOND = "1000"
"""At most; only what changes is drawn. What has changed waits half of one such period for its turn, on average."""


def without_terminal() -> str:
    """Which of the three streams are no terminal, as words; nothing where the app can run. Textual draws on stderr, so
    that `2> file` would put the screen there."""
    streams = {"stdin": sys.stdin, "stdout": sys.stdout, "stderr": sys.stderr}
    return " and ".join(name for name, stream in streams.items() if not stream.isatty())


def run_app(address: str | None, *, cache: Path | None = None, definition: str | TokensDefinition = "folded") -> int:
    """Run in this terminal until the user quits.

    Args:
        address: where to open; None or a model alone: the start screen.
        cache: product cache; the user's by default.
        definition: name or definition of the numbers.

    Returns:
        int: exit code.

    Raises:
        WbtuiError: the address is wrong or cannot be read; there is no terminal.
    """
    if missing := without_terminal():
        raise UsageError(
            f"no terminal on {missing}",
            "a terminal for the app",
            "`wbtui show`, `export` and `screenshot` need none",
        )
    gc.disable()  # while modules are loaded there is nothing to collect; the app turns it on (WbtuiApp.settle_memory)
    os.environ.setdefault("TEXTUAL_FPS", FRAMES_PER_SECOND)  # read when Textual is first imported
    numpy_alone()
    from wbtui.tui.first import First

    with First() as first:
        with late_methods(), without_palette(), without_tls():
            app = opened_app(address, cache, definition, first)
        code = app.run(mouse=bool(settings.get("mouse")))
    if app.last_words:
        print(f"wbtui: {app.last_words}", file=sys.stderr)
        return 1
    return app.return_code or code or 0


def opened_app(
    address: str | None, cache: Path | None, definition: str | TokensDefinition, first: First | None = None
) -> WbtuiApp:
    """The app at an address, as :func:`run_app` runs it; opening has begun. ``first``: the terminal, for a picture
    before it."""
    from wbtui.definitions import named_definition
    from wbtui.tui.data import checked_address

    place = checked_address(address)
    meaning = named_definition(definition) if isinstance(definition, str) else definition
    return_memory()
    from wbtui.tui.data import load_session

    resume = load_session() if place is None and settings.get("resume") else None
    usual = usual_view()
    cache = cache or paths.cache_dir()
    early = open_early(place, resume, cache, meaning, usual[0])
    if first is not None and early is not None:
        first.keep_back()
        show_before(first, early, resume, usual)
    from wbtui.tui.app import WbtuiApp

    return WbtuiApp(
        place,
        cache=cache,
        definition=meaning,
        user_keys=settings.keys(),
        look=str(settings.get("theme")),
        ascii=bool(settings.get("ascii")),
        resume=resume,
        usual=usual,
        early=early,
        line_kbit=float(settings.get("line_kbit")),
        first=first,
    )


def show_before(
    first: First, early: Early, resume: View | None, usual: tuple[tuple[SortKey, ...], tuple[str, ...]]
) -> None:
    """The first picture, where it can stand before the app is loaded."""
    from wbtui.tui import keymap
    from wbtui.tui.data import session_path
    from wbtui.tui.state import usual_start

    if settings.get("line_kbit") or not session_path().exists():
        return  # a slow line has enough of one picture; a first visit has words of its own
    look, ascii, place = str(settings.get("theme")), bool(settings.get("ascii")), early.address
    keymap.use(settings.keys(), ascii=ascii)
    view = resume or usual_start(place.model, place.sae or "", place.feature, usual)
    first.show(early, view, at_top=resume is None and place.feature is None, look=look, ascii=ascii)


def numpy_alone() -> None:
    """Import numpy without its docstrings, and without the threads that its matrix products would use: the app makes
    none, and to start them takes longer than all the rest of numpy. What the app starts gets the user's own setting."""
    before = os.environ.get(BLAS_THREADS)
    os.environ[BLAS_THREADS] = before or "1"
    for name in DOCUMENTS:  # 10,000 lines of them: nobody asks for help in here
        sys.modules.setdefault(name, types.ModuleType(name))
    with without_types():
        import numpy  # noqa: F401

    if before is None:
        del os.environ[BLAS_THREADS]


def open_early(
    place: Address | None, resume: View | None, cache: Path, definition: TokensDefinition, sort: tuple[SortKey, ...]
) -> Early | None:
    """Begin to open the place that the app will show first; None where that is the start screen."""
    from wbtui.address import Address as Place
    from wbtui.tui.data import Early
    from wbtui.tui.state import FIRST_SORT

    if place is not None:
        return Early(place, cache, definition, "", sort or FIRST_SORT) if place.sae is not None else None
    if resume is None:
        return None
    return Early(Place(resume.model, resume.sae, resume.cursor), cache, definition, resume.filter, resume.sort)


def return_memory() -> None:
    """Have the C library give back what is freed: large pieces at once, and from two arenas rather than one a thread.

    By default glibc keeps freed pieces of up to 32 MB, as soon as one of that size was freed: columns of a million
    rows. Nothing happens on other systems.
    """
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    for option, value in ((M_MMAP_THRESHOLD, 1 << 18), (M_TRIM_THRESHOLD, 1 << 18), (M_ARENA_MAX, 2)):
        mallopt(option, value)


def usual_view() -> tuple[tuple[tuple[str, bool], ...], tuple[str, ...]]:
    """The order and the columns of the settings ``sort`` and ``columns``, by their full names.

    Raises:
        UsageError: a name that is no metric.
    """
    from wbtui.features.names import resolve

    words = ("writes", "against", "reads")

    def full(name: str, setting: str) -> str:
        try:
            return name if name in words else resolve(name).text
        except UsageError as error:
            raise UsageError(f"setting {setting}: {error.found}", error.expected, error.do) from None

    sort = tuple(
        (full(name.removeprefix("-"), "sort"), name.startswith("-")) for name in map(str, settings.get("sort"))
    )
    columns = tuple(full(str(name), "columns") for name in settings.get("columns"))
    return sort, ("id", *(c for c in columns if c != "id")) if columns else ()


def make_screenshot(
    address: str | None,
    size: tuple[int, int],
    path_svg: Path,
    keys: Sequence[str] = (),
    *,
    cache: Path | None = None,
    definition: str | TokensDefinition = "folded",
    wait: bool = True,
) -> None:
    """A picture of the real app, without a terminal.

    Args:
        address: as in :func:`run_app`.
        size: columns, rows.
        path_svg: file to write.
        keys: Textual's names of keys to press first.
        wait: wait for missing numbers to be computed (with the service) before the picture is taken.

    Raises:
        WbtuiError: a wrong address, no place to write. TimedOut: the numbers did not come in time.
    """
    import asyncio
    import tempfile

    from wbtui.definitions import named_definition
    from wbtui.notes.store import NoteStore
    from wbtui.tui.app import WbtuiApp
    from wbtui.tui.data import checked_address
    from wbtui.tui.picture import on_grid

    meaning = named_definition(definition) if isinstance(definition, str) else definition
    scratch = tempfile.TemporaryDirectory(prefix="wbtui-picture-")  # a picture shows and changes no one's notes
    app = WbtuiApp(
        checked_address(address),
        notes=NoteStore(Path(scratch.name) / "notes.sqlite"),
        cache=cache or paths.cache_dir(),
        definition=meaning,
        color_system="truecolor",
        remember=False,
        look="dark" if settings.get("theme") == "auto" else str(settings.get("theme")),
        ascii=bool(settings.get("ascii")),
    )

    async def take() -> str:
        async with app.run_test(size=size) as pilot:
            await settle(app, pilot, wait)
            for key in keys:
                await pilot.press(key)
                await settle(app, pilot, wait)
            return on_grid(app.export_screenshot(title="wbtui"))

    try:
        with scratch:
            svg = asyncio.run(take())
        path_svg.parent.mkdir(parents=True, exist_ok=True)
        path_svg.write_text(svg, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path_svg}: {error.strerror or error}", "a file that can be written") from None


async def settle(app: WbtuiApp, pilot: Pilot[Any], wait: bool = True) -> None:
    """Until nothing is under way: workers done, rows arranged, with ``wait`` also everything computed.

    Raises:
        TimedOut: not in time, or the numbers cannot come.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    deadline = loop.time() + SETTLED_WITHIN
    while True:
        await pilot.pause()
        await app.workers.wait_for_complete()
        await pilot.pause()
        main = app.main
        if main is None or main.opened is None:
            if not list(app.workers):
                return
        elif main.settled and (not wait or not (main.opened.missing or app.desk.asking)):
            return
        elif wait and main.opened is not None and main.opened.missing and app.desk.state in ("down", "other version"):
            raise WbtuiError(f"the numbers are not computed, and the service is {app.desk.state}", "", app.desk.line)
        if loop.time() > deadline:
            raise TimedOut(f"the picture did not settle in {SETTLED_WITHIN:g} s")
        await asyncio.sleep(0.01)
