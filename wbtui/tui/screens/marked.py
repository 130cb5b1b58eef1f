"""``M``: marked features of one SAE or of several as a set: words and heads in common, cosines, effective rank."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual.binding import BindingType

from wbtui.display import fit, safe_token_text
from wbtui.errors import WbtuiError
from wbtui.features.marked import Part, SharedHead, SharedWords, labels, shared_heads, shared_words
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
        chosen: SAEs of one model and the features that are marked in each, in the order of the table where they are in
            it. The first is the one that ``⏎`` shows.
    """

    CONTEXT = "set"
    BINDINGS: ClassVar[list[BindingType]] = [*keymap.bindings("set")]

    def __init__(self, main: MainScreen, chosen: Sequence[tuple[Opened, list[int]]]) -> None:
        opened, self.rows = chosen[0]
        super().__init__(opened)
        self.main = main
        short = labels([(each.sae.name, each.sae.layer) for each, _ in chosen])
        self.parts = [
            Part(each.table, tuple(rows), each.sae.name, label)
            for (each, rows), label in zip(chosen, short, strict=True)
        ]
        """The features by SAE."""
        self.top = 0
        self.sides: list[SharedWords | None] = []
        self.heads: list[SharedHead] = []
        self.no_heads = ""
        self.answer: dict[str, Any] | None = None
        self.failure = ""

    @property
    def count(self) -> int:
        """Features in it."""
        return sum(len(part.rows) for part in self.parts)

    @property
    def row(self) -> int:
        """The first of them."""
        return self.rows[0]

    def on_mount(self) -> None:
        """Look up what they share in a thread; ask the service for cosines."""
        self.in_background(self._gather, group="gather", exclusive=True)

    async def _gather(self) -> None:
        try:
            sides = await asyncio.to_thread(lambda: [shared_words(self.parts, s) for s in ("writes", "reads")])
            self.sides = list(sides)
            self.heads, self.no_heads = await asyncio.to_thread(shared_heads, self.parts)
        except (WbtuiError, OSError) as error:
            self.failure = error.line() if isinstance(error, WbtuiError) else str(error)
        self.draw()
        if self.count > MOST:
            self.failure = f"{self.count} features are marked: cosines of at most {MOST}; u unmarks all"
        else:
            members = [[part.sae, row] for part in self.parts for row in part.rows]
            try:
                self.answer = await self.wb.desk.ask(self.opened, "set", {"members": members})
            except WbtuiError as error:
                self.failure = error.line()
        self.pending = False
        self.draw()

    # Drawing --------------------------------------------------------------------------------------------------------

    def head_lines(self, width: int) -> tuple[Line, Line, Line]:
        """Where one is; which features; the rule."""
        opened = self.opened
        one = len(self.parts) == 1
        place = f"{opened.sae.name} {opened.sae.site}" if one else f"{len(self.parts)} SAEs"
        crumb = frame.crumb((short_name(opened.model.name), place, "set"), meaning_of(opened.table), width)
        count = f" {self.count} marked features{'' if one else f' of {len(self.parts)} SAEs'}  "
        every = [part.name(row) for part in self.parts for row in part.rows]
        names = fit(" ".join(every), max(1, width - len(count) - 2))
        return crumb, spread([(count, "strong"), (names, "dim")], [], width), frame.separator(width, None)

    def lines(self, width: int, height: int) -> list[Line]:
        """All of it, scrolled."""
        whole = self._whole(width)
        self.top = max(0, min(self.top, len(whole) - height))
        return whole[self.top : self.top + height]

    def _whole(self, width: int) -> list[Line]:
        of = self.count
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
        out += [*heads_block(self.heads, self.no_heads, width, 6), []]
        if self.answer is not None:
            out += cosines_block(self.parts, self.answer, width)
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
        """Only these in the table, where there are several SAEs those of the first; ``[`` leads back."""
        self.main.show_rows(self.opened, "id:" + ",".join(map(str, self.rows)))

    def action_export(self) -> None:
        """Everything as CSV, and the page as SVG."""
        from wbtui.tui.marked_export import write

        sides = [side for side in self.sides if side is not None]
        picture = self.picture()

        def make(folder: Path) -> list[Path]:
            return write(folder, self.parts, sides, self.heads, self.answer, picture)

        self.write_files(make)


def _beside(left: list[Line], right: list[Line], each: int, width: int) -> list[Line]:
    from wbtui.tui.draw.line import cut

    out: list[Line] = []
    for i in range(max(len(left), len(right))):
        a = cut(left[i] if i < len(left) else [], each)
        b = cut(right[i] if i < len(right) else [], width - each - 3)
        out.append([*a, (" │ ", "rule"), *b])
    return [*out, []]
