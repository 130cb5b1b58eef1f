"""The app: theme, screens, the service desk. Everything else is in its screens."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message

from wbtui.address import Address
from wbtui.definitions import TokensDefinition
from wbtui.notes.store import NoteStore
from wbtui.tui import hangup, keymap
from wbtui.tui import messages as say
from wbtui.tui.ahead import InOrder
from wbtui.tui.data import Early, save_session, session_path
from wbtui.tui.desk import ClientLike, Desk, service_client
from wbtui.tui.direct import Direct
from wbtui.tui.fetching import Downloads
from wbtui.tui.filters import AsciiFilter, Guard
from wbtui.tui.keeper import Keeper
from wbtui.tui.pace import Pace, counted
from wbtui.tui.plain import use_ascii
from wbtui.tui.screens.main import MainScreen
from wbtui.tui.slim import erases, slim_driver
from wbtui.tui.state import SortKey, View
from wbtui.tui.theme import palette_name
from wbtui.tui.themes import LIGHT_THEME, THEME

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from textual.driver import Driver
    from textual.screen import Screen

    from wbtui.catalog.neuronpedia import NotHere
    from wbtui.tui.first import First


LOADED = 1.0
"""Seconds after the first screen at which everything it needs is loaded."""


def _key_commands() -> Any:
    """The palette, loaded when it is opened."""
    from wbtui.tui.palette import KeyCommands

    return KeyCommands


def _places() -> Any:
    from wbtui.tui.palette import Places

    return Places


class WbtuiApp(InOrder):
    """wbtui in a terminal.

    Args:
        address: where to open; a model alone or None opens the start screen.
        cache: the product cache.
        definition: what the numbers mean.
        make_client: for tests; makes a client of the service.
        color_system: for tests; None takes the terminal's.
        remember: whether the last view is kept for the next start.
        user_keys: keys of the user's own, by binding id.
        notes: where marks, tags and notes are; the user's own file by default.
        look: the setting ``theme``.
        ascii: no glyph beyond ASCII.
        resume: where to go on without an address.
        usual: the order and columns with which a table opens, where the user has some.
        line_kbit: kilobits a second that the way to the terminal carries; 0: no limit.
        early: the place that is being opened already.
        first: the terminal, on which a picture may stand.
    """

    TITLE = "wbtui"
    ENABLE_COMMAND_PALETTE = False  # its key is in the key map, as every other one
    COMMANDS: ClassVar[set[Any]] = {_key_commands, _places}
    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+c,ctrl+q", "quit_now", show=False, priority=True)]
    CSS = "Screen { background: $background; color: $foreground; }"

    def __init__(
        self,
        address: Address | None,
        *,
        cache: Path,
        definition: TokensDefinition,
        make_client: Callable[[bool], ClientLike] = service_client,
        color_system: str | None = None,
        remember: bool = True,
        user_keys: Mapping[str, Sequence[str]] | None = None,
        notes: NoteStore | None = None,
        look: str = "auto",
        ascii: bool = False,
        resume: View | None = None,
        usual: tuple[tuple[SortKey, ...], tuple[str, ...]] = ((), ()),
        line_kbit: float = 0.0,
        early: Early | None = None,
        first: First | None = None,
    ) -> None:
        self.pace = Pace(line_kbit)
        self.direct = Direct()
        self._first = first
        self.drawn_before = first is not None and first.standing
        """Whether the first picture stands already."""
        super().__init__()
        self.set_keymap(keymap.use(user_keys or {}, ascii=ascii))
        self.address = address
        self.cache = cache
        self.definition = definition
        self.remember = remember
        self.palette = palette_name(color_system or self.console.color_system, look)
        use_ascii(ascii)
        self._filters.append(Guard())
        if ascii:
            self._filters.append(AsciiFilter())
        if self.palette in ("rich", "light"):
            theme = THEME if self.palette == "rich" else LIGHT_THEME
            self.register_theme(theme)
            self.theme = theme.name
        else:
            self.theme = "ansi-dark"  # the terminal's own colours, or with NO_COLOR none
        self.stylesheet.set_variables(self.get_css_variables())
        self._styled_for: str | None = self.theme
        """The theme whose colours the style sheet has from the first on; None once Textual has looked after it."""
        self.first_run = remember and not session_path().exists()
        self.desk = Desk(self._tell, make_client)
        self.keeper = Keeper(notes)
        self.downloads = Downloads(self._tell)
        self.resume = resume
        self.usual = usual
        self._leaving = False
        self.early = early
        self.last_words = ""
        """What the user has to know after the screen is gone."""

    def on_resize(self, event: events.Resize) -> None:
        """Terminals move and clear cells as they please."""
        self._forget_cells()

    def _forget_cells(self) -> None:
        forget = getattr(self._driver, "forget", None)
        if forget is not None:
            forget()

    def let_keys_in(self) -> None:
        """The first screen has what keys are meant for: they wait no longer."""
        if self._first is not None:
            self._first.let_in()

    def refresh_css(self, animate: bool = True) -> None:
        """Textual's, but for its first time, which sets a theme anew that was there before anything had a style."""
        known, self._styled_for = self._styled_for, None
        if known != self.theme:
            super().refresh_css(animate)

    def action_redraw(self) -> None:
        """Send every cell again, whatever the terminal is thought to show."""
        self._forget_cells()
        self.screen.refresh()

    def _tell(self, message: Message) -> None:
        """What the desk says goes to the screen on top and to the main screen under it."""
        for screen in self.screen_stack:
            if screen is self.screen or isinstance(screen, MainScreen):
                screen.post_message(message)

    def on_mount(self) -> None:
        """What is looked after from the first screen on."""
        if not self.is_headless:
            self.set_timer(LOADED, self.settle_memory)
        if self.remember:
            self._take_signals()

    def get_default_screen(self) -> Screen[Any]:
        """The first screen. Under it there is nothing: a blank one, as Textual has, would be laid out before it."""
        if self.address is not None and self.address.sae is not None:
            return MainScreen(self.address, usual=self.usual)
        if self.address is None and self.resume is not None:
            view = self.resume
            return MainScreen(Address(view.model, view.sae, view.cursor), view)
        from wbtui.tui.screens.start import StartScreen

        return StartScreen(self.address.model if self.address else None)

    def settle_memory(self) -> None:
        """Collect garbage from now on, but never look at what was loaded: it stays, and a key would wait for it."""
        gc.freeze()
        gc.enable()

    def _take_signals(self) -> None:
        """A closed terminal or a polite kill is a way to leave: place, marks and a note under work are kept."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGHUP, signal.SIGTERM):
            with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):  # not in the main thread
                loop.add_signal_handler(number, self._told_to_leave)
        if not self.is_headless and sys.__stdin__ is not None and sys.__stdin__.isatty():
            hangup.when_gone(sys.__stdin__.fileno(), functools.partial(loop.call_soon_threadsafe, self._told_to_leave))

    def _told_to_leave(self) -> None:
        """Once, however many say so."""
        if not self._leaving:
            self._leaving = True
            self.leave(None)

    def get_driver_class(self) -> type[Driver]:
        """Textual's own, that outlives its terminal, counts what it writes and sends only what changes."""
        own = super().get_driver_class()
        driver = counted(hangup.outliving(own), self.pace)
        if own.__name__ != "LinuxDriver":
            return driver
        return slim_driver(driver, erase=self.pace.limited and erases(), first=self._first)

    @property
    def main(self) -> MainScreen | None:
        """The main screen, where there is one."""
        return next((s for s in self.screen_stack if isinstance(s, MainScreen)), None)

    def show_main(self, address: Address, view: View | None = None) -> None:
        """Open an address from the start screen."""
        main = self.main
        if main is not None:
            self.pop_screen()
            if view is not None:
                main.open(address, view)
            else:
                main.visit(address)
        else:
            self.push_screen(MainScreen(address, view, usual=self.usual))

    def show_start(self, asked: NotHere | None = None) -> None:
        """The start screen, over the main one; at a published SAE that was asked for and is not here."""
        from wbtui.tui.screens.start import StartScreen

        main = self.main
        self.push_screen(StartScreen(main.view.model if main is not None else None, asked))

    def back_or_leave(self) -> None:
        """From the start screen: back to what was open, or out."""
        if self.main is not None and self.screen is not self.main:
            self.pop_screen()
        else:
            self.leave(None)

    def leave(self, view: View | None) -> None:
        """Quit, remembering where one was."""
        main = self.main
        if main is not None and main.opened is not None:
            self.last_words = main.save_unsaved()
        view = view or (main.view if main is not None and main.opened is not None else None)
        if self.remember and view is not None:
            save_session(view)
        self.exit(0)

    def action_quit_now(self) -> None:
        """Ctrl+C and Ctrl+Q, wherever one is."""
        self.leave(None)

    async def on_unmount(self) -> None:
        """Keep what is owed; say goodbye to the service."""
        self.last_words = " · ".join(filter(None, (self.last_words, await self.keeper.close())))
        await self.downloads.close()
        await self.desk.close()

    def on_exported(self, message: say.Exported) -> None:
        """Nothing here: screens show it."""
