"""What every screen has: its keys, a footer of them, and a word for terminals that are too small."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual import events
from textual.app import ComposeResult
from textual.screen import Screen

from wbtui.tui.draw.frame import keys_line, too_small
from wbtui.tui.state import MIN_HEIGHT, MIN_WIDTH
from wbtui.tui.widgets.lines import Lines

if TYPE_CHECKING:
    from wbtui.tui.app import WbtuiApp

Background = Callable[..., Coroutine[Any, Any, Any]]


class WbScreen(Screen[str]):
    """A screen that says so where it has no room, and goes on running."""

    ALLOW_SELECT = False
    CONTEXT: ClassVar[str] = "main"
    DEFAULT_CSS = """
    WbScreen { layout: vertical; }
    WbScreen #small { display: none; height: 3; }
    WbScreen.-small > * { display: none; }
    WbScreen.-small > #small { display: block; }
    WbScreen Input {
        border: none; height: 1; padding: 0; background: $background;
    }
    WbScreen Input:focus { border: none; background: $background; }
    WbScreen Input > .input--cursor { text-style: reverse; }
    """

    _shown_before = False

    def _on_screen_resume(self, event: events.ScreenResume) -> None:
        """Textual's own comes after this; widgets that were just made have their styles, and need not be given them
        again before they are drawn for the first time."""
        event.refresh_styles = event.refresh_styles and self._shown_before
        self._shown_before = True

    @property
    def wb(self) -> WbtuiApp:
        """The app, typed."""
        return cast("WbtuiApp", self.app)

    def compose(self) -> ComposeResult:
        """The body, then the footer."""
        yield from self.body()
        yield Lines(id="keys")
        yield from self.tail()
        yield Lines(id="small")

    def tail(self) -> ComposeResult:
        """Widgets under the footer."""
        return iter(())

    def body(self) -> ComposeResult:
        """Widgets above the footer."""
        return iter(())

    @property
    def small(self) -> bool:
        """Whether the terminal is too small to draw in."""
        return self.app.size.width < MIN_WIDTH or self.app.size.height < MIN_HEIGHT

    def on_resize(self, event: events.Resize) -> None:
        """Fit, or say that it does not."""
        self.set_class(self.small, "-small")
        for entry in self.query("Input"):
            entry.cursor_blink = False  # type: ignore[attr-defined]  # twice a second is traffic that a slow line feels, for nothing
        width, height = self.app.size
        if self.small:
            self.query_one("#small", Lines).set_lines(too_small(width, height))
            return
        self.draw_keys()
        self.call_after_refresh(self.fit)

    def _on_timer_update(self) -> None:
        """Textual's turn to draw; it comes again until the line has carried what went before."""
        if self.wb.pace.open():
            self.wb.direct.draw(self)  # what it leaves, or all, is drawn by Textual
            super()._on_timer_update()

    def _compositor_refresh(self) -> None:
        """Textual's drawing of regions, where it is needed."""
        if self.wb.direct.redraw(self):
            self.app._update_mouse_over(self)
        else:
            super()._compositor_refresh()

    def draw_now(self) -> None:
        """Draw what has changed without waiting for Textual's turn, unless more keys wait or it is Textual's work."""
        if not self.message_queue_size and not self.app.message_queue_size and self.wb.pace.open():
            self.wb.direct.draw(self)

    @property
    def keys_context(self) -> str:
        """Whose keys the footer shows."""
        return self.CONTEXT

    def draw_keys(self) -> None:
        """The footer."""
        self.query_one("#keys", Lines).set_lines([keys_line(self.keys_context, self.app.size.width)])

    def action_palette(self) -> None:
        """Every key by its words."""
        from textual.command import CommandPalette

        if not CommandPalette.is_open(self.app):
            self.app.push_screen(CommandPalette(id="--command-palette", placeholder="what to do…"))

    def action_help(self) -> None:
        """The keys that hold here, then all others."""
        from wbtui.tui.screens.help import HelpScreen

        self.app.push_screen(HelpScreen(self.CONTEXT, self.panel))

    @property
    def panel(self) -> str:
        """The panel that has the keys, in words."""
        return ""

    def in_background(
        self,
        work: Callable[..., Coroutine[Any, Any, None]],
        *args: Any,
        group: str = "default",
        exclusive: bool = False,
    ) -> None:
        """Run work beside the keys. It is called when its turn comes: where the app ends first, nothing was begun."""
        self.run_worker(partial(work, *args), group=group, exclusive=exclusive)  # type: ignore[arg-type]

    def fit(self) -> None:
        """Draw for the present size."""
