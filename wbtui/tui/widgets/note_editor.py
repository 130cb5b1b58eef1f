"""The note of a feature, edited where the card stands."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import TextArea

from wbtui.tui import keymap
from wbtui.tui.draw.line import Line, rule
from wbtui.tui.widgets.lines import Lines

HEIGHT = 6


class NoteKept(Message):
    """Enter: the text is to be kept."""


class NoteLeft(Message):
    """Esc: leave."""


class NoteArea(TextArea):
    """The text; a few keys are the app's."""

    BINDINGS: ClassVar[list[BindingType]] = [*keymap.bindings("note")]

    def action_keep(self) -> None:
        """Keep it."""
        self.post_message(NoteKept())

    def action_new_line(self) -> None:
        """A line end."""
        self.insert("\n")

    def action_leave(self) -> None:
        """Leave."""
        self.post_message(NoteLeft())


class NoteEditor(Vertical):
    """A rule that says what the keys do, and the text under it."""

    DEFAULT_CSS = """
    NoteEditor { layer: above; position: absolute; height: 6; background: $background; }
    NoteEditor TextArea { border: none; padding: 0 1; height: 1fr; background: $panel; }
    NoteEditor TextArea:focus { border: none; }
    """

    def __init__(self, feature: int, text: str) -> None:
        super().__init__(id="note")
        self.feature = feature
        self.was = text
        self.at_first = text
        """The text as the editor shows it, which may join or split lines otherwise."""
        self.warned = False
        self.note: tuple[str, str] = ("", "dim")

    def compose(self) -> ComposeResult:
        """Rule and text."""
        yield Lines(id="note-head")
        yield NoteArea(self.was, id="note-text", soft_wrap=True, show_line_numbers=False, tab_behavior="focus")

    def on_mount(self) -> None:
        """Type at the end."""
        area = self.area
        self.at_first = area.text
        area.move_cursor(area.document.end)
        area.focus()
        self.draw()

    @property
    def area(self) -> NoteArea:
        """The text's widget."""
        return self.query_one("#note-text", NoteArea)

    @property
    def text(self) -> str:
        """What stands there now."""
        return self.area.text

    @property
    def changed(self) -> bool:
        """Whether it differs from what was there."""
        return self.text != self.at_first

    def say(self, text: str, role: str = "warn") -> None:
        """A line in place of the rule, until the next change."""
        self.note = (" ".join(text.split()), role)
        self.draw()

    def on_text_area_changed(self, event: TextArea.Changed) -> None:
        """Typing takes a warning away."""
        event.stop()
        if self.note[0]:
            self.warned, self.note = False, ("", "dim")
            self.draw()

    def on_resize(self) -> None:
        """The rule is as wide as the card."""
        self.draw()

    def draw(self) -> None:
        """The rule."""
        head = self.query_one("#note-head", Lines)
        width = max(1, self.size.width)
        keys = " · ".join(f"{key} {word}" for key, word in keymap.footer("note", width))
        line: Line = [self.note] if self.note[0] else rule(width, f" NOTE of #{self.feature}", f"{keys} ")
        head.set_lines([line])
