"""``M``: the marked features as a set: words and heads that they share, their cosines, effective rank."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual.binding import BindingType

from wbtui.display import safe_token_text
from wbtui.errors import WbtuiError
from wbtui.features.marked import SharedHead, SharedWords, shared_heads, shared_words
from wbtui.tui import keymap
from wbtui.tui.draw import frame
from wbtui.tui.draw.line import Line, spread, wrap
from wbtui.tui.draw.marked import cosines_block, heads_block, words_block
from wbtui.tui.facts import meaning_of, short_name
from wbtui.tui.screens.page import PageScreen
from wbtui.tui.widgets.card import Card

if TYPE_CHECKING:
    from wbtui.tui.data import Opened
    from wbtui.tui.screens.main import MainScreen

MOST = 200
"""Features whose cosines the service makes at once."""
WIDE = 110


class SetScreen(PageScreen):
    """Marked features side by side.

    Args:
        main: the screen below.
        opened: the SAE.
        rows: the marked features, in the order of the table where they are in it.
    """

    CONTEXT = "set"
    BINDINGS: ClassVar[list[BindingType]] = [*keymap.bindings("set")]

    def __init__(self, main: MainScreen, opened: Opened, rows: list[int]) -> None:
        super().__init__(opened)
        self.main = main
        self.rows = rows
        self.top = 0
        self.sides: list[SharedWords | None] = []
        self.heads: list[SharedHead] = []
        self.no_heads = ""
        self.answer: dict[str, Any] | None = None
        self.failure = ""

    @property
    def row(self) -> int:
        """The first of them."""
        return self.rows[0]

    def on_mount(self) -> None:
        """Look up what they share in a thread; ask the service for cosines."""
        self.in_background(self._gather, group="gather", exclusive=True)

    async def _gather(self) -> None:
        table = self.opened.table
        try:
            sides = await asyncio.to_thread(lambda: [shared_words(table, self.rows, s) for s in ("writes", "reads")])
            self.sides = list(sides)
            self.heads, self.no_heads = await asyncio.to_thread(shared_heads, table, self.rows)
        except (WbtuiError, OSError) as error:
            self.failure = error.line() if isinstance(error, WbtuiError) else str(error)
        self.draw()
        if len(self.rows) > MOST:
            self.failure = f"{len(self.rows)} features are marked: cosines of at most {MOST}"
        else:
            try:
                self.answer = await self.wb.desk.ask(self.opened, "set", {"rows": self.rows})
            except WbtuiError as error:
                self.failure = error.line()
        self.pending = False
        self.draw()

    # Drawing --------------------------------------------------------------------------------------------------------

    def head_lines(self, width: int) -> tuple[Line, Line, Line]:
        """Where one is; which features; the rule."""
        opened = self.opened
        parts = (short_name(opened.model.name), f"{opened.sae.name} {opened.sae.site}", "set")
        crumb = frame.crumb(parts, meaning_of(opened.table), width)
        count = f" {len(self.rows)} marked features  "
        names = " ".join(f"#{row}" for row in self.rows[: max(1, (width - len(count) - 2) // 7)])
        more = " …" if len(names.split()) < len(self.rows) else ""
        return crumb, spread([(count, "strong"), (names + more, "dim")], [], width), frame.separator(width, None)

    def lines(self, width: int, height: int) -> list[Line]:
        """All of it, scrolled."""
        whole = self._whole(width)
        self.top = max(0, min(self.top, len(whole) - height))
        return whole[self.top : self.top + height]

    def _whole(self, width: int) -> list[Line]:
        of = len(self.rows)
        if not self.sides and not self.failure:
            return [[("  gathering…", "dim")]]
        columns = 2 if width >= WIDE else 1
        each = (width - 3) // 2 if columns == 2 else width
        blocks = [words_block(side, of, each, 8) for side in self.sides]
        out: list[Line] = []
        if columns == 2 and len(blocks) == 2:
            out += _beside(blocks[0], blocks[1], each, width)
        else:
            for block in blocks:
                out += [*block, []]
        out += [*heads_block(self.heads, self.no_heads, of, width, 6), []]
        if self.answer is not None:
            out += cosines_block(self.opened.table, self.answer, width)
        else:
            words = f"– {safe_token_text(self.failure)}" if self.failure else "cosines are on their way…"
            out += [[("COSINES OF DECODERS", "head")], *wrap(words.split(), width, "dim")]
        return out

    # Keys -----------------------------------------------------------------------------------------------------------

    def _scroll(self, delta: int) -> None:
        self.top += delta
        self.draw()

    def action_down(self) -> None:
        """One line."""
        self._scroll(1)

    def action_up(self) -> None:
        """One line."""
        self._scroll(-1)

    def action_page(self, sign: int) -> None:
        """A page."""
        self._scroll(sign * max(1, self.query_one("#drawing", Card).size.height - 2))

    def on_card_scrolled(self, message: object) -> None:
        """The wheel."""
        self._scroll(getattr(message, "lines", 0))

    def action_show(self) -> None:
        """Only these in the table; ``[`` leads back."""
        self.main.show_rows(self.opened, "id:" + ",".join(map(str, self.rows)))

    def action_export(self) -> None:
        """Everything as CSV, and the page as SVG."""
        from wbtui.tui.marked_export import write

        sides = [side for side in self.sides if side is not None]
        picture, table = self.picture(), self.opened.table

        def make(folder: Path) -> list[Path]:
            return write(folder, table, self.rows, sides, self.heads, self.answer, picture)

        self.write_files(make)


def _beside(left: list[Line], right: list[Line], each: int, width: int) -> list[Line]:
    from wbtui.tui.draw.line import cut

    out: list[Line] = []
    for i in range(max(len(left), len(right))):
        a = cut(left[i] if i < len(left) else [], each)
        b = cut(right[i] if i < len(right) else [], width - each - 3)
        out.append([*a, (" │ ", "rule"), *b])
    return [*out, []]
