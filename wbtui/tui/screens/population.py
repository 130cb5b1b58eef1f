"""``F``: how a metric is spread over all features, by group and against noise, with a line that moves."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from textual.binding import BindingType

from wbtui.errors import WbtuiError
from wbtui.features.glossary import explain
from wbtui.tui import keymap
from wbtui.tui.crowd import LABEL_WORDS, LABELS, Crowd, Standing, gather, metrics_of
from wbtui.tui.draw import frame
from wbtui.tui.draw.histogram import GUTTER, Grid, number, plot
from wbtui.tui.draw.line import Line, cut, spread, width_of, wrap
from wbtui.tui.draw.numbers import BESIDE, beside, caution, under
from wbtui.tui.facts import meaning_of, short_name, value_of
from wbtui.tui.screens.page import PageScreen
from wbtui.tui.widgets.card import Card

if TYPE_CHECKING:
    from wbtui.tui.data import Opened

SIDE_BY_SIDE = 110
"""Width from which the tables stand beside the drawing."""
FAST = 5
"""Bins that a fast key moves the line."""
LOOK_EVERY = 0.5
"""Seconds between looks whether rows landed."""


@dataclass(frozen=True)
class Wanted:
    """What to draw."""

    metric: str
    label: str = LABELS[0]
    log: bool = False
    cumulative: bool = False
    line: float | None = None
    """Where the line was moved to; None: where the noise puts it."""


class PopulationScreen(PageScreen):
    """One drawing and its numbers; keys move the line, change metric, groups and axis.

    Args:
        opened: the SAE.
        row: the feature whose place is marked.
        metric: what to open on.
        show_rows: takes a filter and shows its rows (after this page has gone).
    """

    CONTEXT = "population"
    BINDINGS: ClassVar[list[BindingType]] = [*keymap.bindings("population")]

    def __init__(self, opened: Opened, row: int, metric: str, show_rows: Callable[[str], None]) -> None:
        super().__init__(opened)
        self._row = row
        self.metrics = metrics_of(metric)
        self.wanted = Wanted(metric)
        self.show_rows = show_rows
        self.crowd: Crowd | None = None
        self.failure = ""
        self._version = -1
        self._drawn_as: tuple[str, str, bool] | None = None

    # Gathering and drawing ------------------------------------------------------------------------------------------

    def on_mount(self) -> None:
        """Gather, and look now and then whether rows landed."""
        self.gather()
        self.set_interval(LOOK_EVERY, self._look)

    def _look(self) -> None:
        if self.opened.table.version != self._version and not self.pending:
            self.gather()

    def gather(self) -> None:
        """Make what is wanted in a thread; what is drawn stays until it is there."""
        self.pending = True
        self.in_background(self._gather, self.wanted, group="gather", exclusive=True)

    async def _gather(self, wanted: Wanted) -> None:
        table = self.opened.table
        version = table.version
        try:
            crowd = await asyncio.to_thread(gather, table, wanted.metric, wanted.label, log=wanted.log)
        except (WbtuiError, OSError) as error:
            self.failure = error.line() if isinstance(error, WbtuiError) else str(error)
            self.crowd = None
        else:
            self.failure, self.crowd = "", crowd
        self._version, self.pending = version, False
        self.draw()

    @property
    def row(self) -> int:
        """The feature whose place is marked."""
        return self._row

    @property
    def standing(self) -> Standing:
        """The line where it stands now."""
        assert self.crowd is not None
        return self.crowd.stand(self.crowd.start if self.wanted.line is None else self.wanted.line)

    @property
    def mark(self) -> tuple[str, float]:
        """This feature's name and value."""
        table = self.opened.table
        inside = self.crowd is not None and 0 <= self.row < table.n
        return f"#{self.row}", value_of(table, self.crowd.name, self.row) if inside and self.crowd else math.nan

    @property
    def drawing_width(self) -> int:
        """Cells of the drawing."""
        inner = self.query_one("#drawing", Card).inner_width
        return inner - BESIDE - 3 if self.app.size.width >= SIDE_BY_SIDE else inner

    def head_lines(self, width: int) -> tuple[Line, Line, Line]:
        """Where one is, how the line was set, what the metric means."""
        sae = self.opened.sae
        place = f"{sae.name} {sae.site}" if width >= 100 else sae.name
        what = f"population of {self.wanted.metric}" if width >= 76 else self.wanted.metric
        parts = (short_name(self.opened.model.name), place, what)
        meaning = explain(self.wanted.metric)
        note = meaning.meaning + (f" ({meaning.side})" if meaning.side and width > 150 else "")
        return (
            frame.crumb(parts, meaning_of(self.opened.table), width),
            self._title(width),
            frame.separator(width, None, note=note),
        )

    def _title(self, width: int) -> Line:
        crowd = self.crowd
        words = LABEL_WORDS[self.wanted.label] if crowd is None or len(crowd.groups) > 1 else "all features"
        left: Line = [(" " + words, "text")]
        if crowd is None or crowd.missing:
            return cut(left, width)
        if self.wanted.line is None:
            tries = [f"threshold {number(crowd.bins, crowd.start)}, {crowd.mode}: {crowd.how} "]
            short = "99 % of noise" if crowd.noise else crowd.how.partition(":")[0]
            tries += [tries[0].replace(", the larger of both", "")]
            tries += [f"threshold {number(crowd.bins, crowd.start)}, {crowd.mode}: {short} "]
        else:
            usual = f"{crowd.mode}: {number(crowd.bins, crowd.start)}" + ("" if crowd.noise else ", the median")
            value = number(crowd.bins, self.wanted.line)
            tries = [f"threshold {value}, fixed by hand ({usual}) ", f"threshold {value}, fixed ({usual}) "]
        brief: Line = [(" " + words.partition(", by")[0].partition(", on")[0], "text")]
        for head in (left, brief):
            for text in tries:
                if width_of(head) + len(text) + 2 <= width:
                    return spread(head, [(text, "dim")], width)
        return spread(brief, [(tries[-1], "dim")], width)

    def lines(self, width: int, height: int) -> list[Line]:
        """Drawing and tables."""
        crowd = self.crowd
        why = self.failure or (crowd.missing if crowd is not None else "")
        if crowd is None or why:
            words = why or "gathering…"
            hint = "m the next metric · Esc back" if why else ""
            lines = [*wrap(words.split(), width - 4, "error" if self.failure else "text"), [(hint, "dim")]]
            return [[], *([("  ", "text"), *line] for line in lines)]
        line, mark = self.standing, self.mark
        if self.app.size.width >= SIDE_BY_SIDE:
            left_width = width - BESIDE - 3
            left = plot(crowd, line, mark, left_width, height, cumulative=self.wanted.cumulative)
            right = beside(crowd, line, mark, BESIDE, height)
            out: list[Line] = []
            for i in range(height):
                a = left[i] if i < len(left) else []
                out.append([*cut(a, left_width), (" │ ", "rule"), *(right[i] if i < len(right) else [])])
            return out
        tables = under(crowd, line, width, max(5, height - 11))
        room = height - len(tables) - 1
        if room > 9 and room % 2 and (note := caution(crowd, width)):  # the drawing would leave that line blank
            room, tables = room - 1, [*tables, note]
        drawing = plot(crowd, line, mark, width, room, cumulative=self.wanted.cumulative)
        return [*drawing, [("─" * width, "rule")], *tables]

    # Keys -----------------------------------------------------------------------------------------------------------

    def _want(self, wanted: Wanted) -> None:
        again = (wanted.metric, wanted.label, wanted.log) != (self.wanted.metric, self.wanted.label, self.wanted.log)
        self.wanted, self.notice = wanted, ("", "dim")
        if again:
            self.gather()
            self.draw_head()
        else:
            self.draw()

    def action_shift_line(self, columns: int) -> None:
        """Move the line by bins."""
        crowd = self.crowd
        if crowd is None or crowd.missing or self.pending:
            return
        here = crowd.start if self.wanted.line is None else self.wanted.line
        per = Grid(crowd.bins, max(1, self.drawing_width - GUTTER)).per
        self._want(replace(self.wanted, line=crowd.step(here, columns * per)))

    def action_fast(self, sign: int) -> None:
        """Faster."""
        self.action_shift_line(sign * FAST)

    def action_reset(self) -> None:
        """Back to where the noise puts it."""
        self._want(replace(self.wanted, line=None))

    def action_metric(self, step: int) -> None:
        """Another metric."""
        at = self.metrics.index(self.wanted.metric)
        self._want(replace(self.wanted, metric=self.metrics[(at + step) % len(self.metrics)], line=None))

    def action_groups(self) -> None:
        """Other labels."""
        self._want(replace(self.wanted, label=LABELS[(LABELS.index(self.wanted.label) + 1) % len(LABELS)]))

    def action_log(self) -> None:
        """Logarithmic axis, or linear again."""
        crowd = self.crowd
        if not self.wanted.log and crowd is not None and not (crowd.split.population.sorted > 0).any():
            self.notice = (f"no value of {crowd.name} is above 0: a logarithmic axis shows nothing", "warn")
            self.draw()
            return
        self._want(replace(self.wanted, log=not self.wanted.log))

    def action_cumulative(self) -> None:
        """Shares at or below, or per bin again."""
        self._want(replace(self.wanted, cumulative=not self.wanted.cumulative))

    def action_rows(self) -> None:
        """The features under the line as a table."""
        crowd = self.crowd
        if crowd is None or crowd.missing or self.pending:
            return
        first, stop = Grid(crowd.bins, max(1, self.drawing_width - GUTTER)).span(self.standing.value)
        counts = {g: int(crowd.counts[g][first:stop].sum()) for g in crowd.groups}
        if not sum(counts.values()) and not crowd.unlabelled:
            self.notice = (f"no feature stands under the line ({crowd.bins.span(first, stop)}); ← → move it", "warn")
            self.draw()
            return
        expression = crowd.bins.expression(crowd.name, first, stop)
        self.app.pop_screen()
        self.show_rows(expression)

    def action_export(self) -> None:
        """Counts and statistics as CSV, the picture as SVG, beside each other in the working folder."""
        crowd = self.crowd
        if crowd is None or crowd.missing or self.pending:
            return
        from wbtui.tui.crowd_export import write

        table, line, mark, svg = self.opened.table, self.standing, self.mark, self.picture()
        self.write_files(lambda folder: write(folder, table, crowd, line, mark, svg))
