"""Small changes go straight to the terminal: the lines of widgets that nothing covers, without Textual's compositor.

A move of the cursor changes two rows and a card. Textual renders every widget in the rectangle around them, cuts all
lines at all edges, writes them out as text, and :mod:`wbtui.tui.slim` reads that text again: six of the eight
milliseconds that a key took. Here the changed lines of the changed widgets are compared as cells with what the terminal
shows. What is drawn is what Textual would have drawn: the widgets' own ``render_lines``, at the places that its
compositor gave them. Whatever is out of the ordinary is left to Textual: a layout that is due, a widget with children,
scrolling, a widget that another one covers or that is clipped, a colour system that cannot be followed.
"""

from __future__ import annotations

import sys
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from rich.color import ColorSystem
from rich.segment import Segment
from textual.color import Color
from textual.filter import ANSIToTruecolor, LineFilter, Monochrome, NoColor
from textual.geometry import Region
from textual.strip import Strip

from wbtui.tui.cells import Style, cells_of
from wbtui.tui.filters import Guard
from wbtui.tui.slim import Span
from wbtui.tui.widgets.lines import Drawn

if TYPE_CHECKING:
    from collections.abc import Collection

    from rich.style import Style as RichStyle
    from textual.app import App
    from textual.screen import Screen
    from textual.widget import Widget

BY_STYLE = (Guard, ANSIToTruecolor, NoColor, Monochrome)
"""Filters that leave harmless text as it is, and make the same of a style whatever its text."""
GROUNDS = (Color(0, 0, 0), Color(255, 255, 255))
"""Backgrounds on which a style is tried: what comes out is known only where it is the same."""
KEPT = 512
"""Styles that are remembered."""
Places = dict["Widget", Region]


class Direct:
    """Draws on one terminal, through a driver that has ``show`` (:func:`wbtui.tui.slim.slim_driver`)."""

    def __init__(self) -> None:
        self._styles: dict[RichStyle, Style | None] = {}
        self._system = ColorSystem.TRUECOLOR
        self._filters: list[LineFilter] = []
        self._by_style = True
        self._map: object = None
        self._places: Places = {}
        self.drawn = 0
        """Frames drawn here (tests and benchmarks read it)."""

    def draw(self, screen: Screen[Any]) -> bool:
        """Draw what has changed on a screen; False, and nothing is touched, where that is Textual's work."""
        if not self._can(screen) or screen._compositor._dirty_regions or screen._repaint_required or _unusual(screen):
            return False
        dirty: dict[Widget, Collection[Region]] = {}
        for widget in screen._compositor.visible_widgets:
            if _unusual(widget):
                return False
            if widget._repaint_required or widget in screen._dirty_widgets:
                dirty[widget] = widget._repaint_regions
        if screen._dirty_widgets.difference(dirty) or not self._show(screen, dirty):
            return False
        for widget in dirty:
            widget._exchange_repaint_regions()
            widget._repaint_required = False
        screen._dirty_widgets.clear()
        app = screen.app
        app.post_display_hook()
        app._update_mouse_over(screen)
        return True

    def redraw(self, screen: Screen[Any]) -> bool:
        """Draw the regions that Textual's compositor has found to be changed, as after a layout; False, and nothing is
        touched, where widgets that are drawn here do not cover them all."""
        regions = screen._compositor._dirty_regions
        if not self._can(screen) or not regions:
            return False
        dirty: dict[Widget, Collection[Region]] = {}
        left = sum(region.intersection(screen.outer_size.region).area for region in regions)
        for widget, place in self._placed(screen).items():
            parts = [part for region in regions if (part := region.intersection(place))]
            if parts:
                dirty[widget] = [part.translate(-place.offset) for part in parts]
                left -= sum(part.area for part in parts)
        if left or not self._show(screen, dirty):
            return False
        regions.clear()
        screen._dirty_widgets.clear()
        screen.app.post_display_hook()
        return True

    def _can(self, screen: Screen[Any]) -> bool:
        app = screen.app
        there = app._running and not app._closed and not app._batch_count and not app.is_inline
        return there and app.screen is screen and hasattr(app._driver, "show")

    def _placed(self, screen: Screen[Any]) -> Places:
        visible = screen._compositor.visible_widgets
        if self._map is not visible:
            self._map, self._places = visible, uncovered(visible)
        return self._places

    def _show(self, screen: Screen[Any], dirty: dict[Widget, Collection[Region]]) -> bool:
        """Show regions of widgets, each from its own corner; False where that cannot be."""
        app, places = screen.app, self._placed(screen)
        self.use(app)
        spans: list[Span] = []
        for widget, regions in dirty.items():
            place = places.get(widget)
            if place is None or place.size != widget.outer_size or not self._take(widget, place, regions, spans):
                return False
        spans.sort(key=itemgetter(0, 1))
        cursor = screen.outer_size.clamp_offset(app.cursor_position)
        shown: bool = app._driver.show(spans, f"\x1b[{cursor.y + 1};{cursor.x + 1}H", app._sync_available)  # type: ignore[union-attr]
        if shown:
            app._previous_cursor_position = cursor
            self.drawn += 1
        return shown

    def use(self, app: App[Any]) -> None:
        """Take an app's colours and filters; what was made for others is forgotten."""
        self._use(app.console._color_system or ColorSystem.TRUECOLOR, list(app.get_line_filters()))

    def _use(self, system: ColorSystem, filters: list[LineFilter]) -> None:
        if system is not self._system or filters != self._filters:
            self._system, self._filters = system, filters
            self._by_style = all(type(each) in BY_STYLE for each in filters)
            self._styles.clear()

    def _take(self, widget: Widget, place: Region, regions: Collection[Region], spans: list[Span]) -> bool:
        """The cells of a widget's changed lines; False where one cannot be told."""
        rows: dict[int, list[tuple[int, int]]] = {}
        for region in regions:
            x, y, width, height = region.intersection(place.reset_offset)
            for row in range(y, y + height):
                rows.setdefault(row, []).append((x, x + width))
        strips: list[Strip] = []
        for row, ranges in rows.items():
            x, end = min(ranges)[0], max(b for _, b in ranges)
            if isinstance(widget, Drawn) and self._by_style and (x, end) == (0, place.width):
                cells = widget.cells_at(row, self.style)
                if cells is not None:
                    spans.append((place.y + row, place.x, cells, cells))
                    continue
            strips = strips or widget.render_lines(place.reset_offset)
            strip = strips[row] if (x, end) == (0, place.width) else strips[row].crop(x, end)
            text = strip_text(strip, self._system)
            found = cells_of(text)
            if found is None:
                return False
            spans.append((place.y + row, place.x + x, text, found[0] if found[1] else None))
        return True

    def style(self, rich: RichStyle) -> Style | None:
        """What the terminal makes of a style, through the app's filters; None where that cannot be told of the style
        alone, or is more than cells show (links)."""
        if rich not in self._styles:
            if len(self._styles) >= KEPT:
                self._styles.clear()
            self._styles[rich] = self._told(rich)
        return self._styles[rich]

    def _told(self, rich: RichStyle) -> Style | None:
        made = set()
        for ground in GROUNDS:
            segments = [Segment("x", rich)]
            for each in self._filters:
                segments = each.apply(segments, ground)
            made.add(strip_text(Strip(segments), self._system))
        found = cells_of(made.pop())
        return found[0][0][1] if not made and found is not None else None


def strip_text(strip: Strip, system: ColorSystem) -> str:
    """A strip as Textual writes it out."""
    return "".join(
        text if style is None else Strip.render_style(style, text, color_system=system)
        for text, style, _ in strip._segments
    )


def _unusual(widget: Widget) -> bool:
    return widget._layout_required or widget._scroll_required or widget._recompose_required


def uncovered(visible: dict[Widget, tuple[Region, Region]]) -> Places:
    """Where widgets stand that draw all of their place and that nothing covers: lines of ours, and entries.

    Args:
        visible: region and clip of every widget, front to back.
    """
    loaded = sys.modules.get("textual.widgets._input")  # where it is not, no entry can be on screen
    kinds = (Drawn, loaded.Input) if loaded is not None else (Drawn,)
    out: Places = {}
    before: list[Region] = []
    for widget, (region, clip) in visible.items():
        whole = clip.contains_region(region) and not any(region.overlaps(other) for other in before)
        if whole and isinstance(widget, kinds) and not widget._nodes:
            out[widget] = region
        before.append(region)
    return out
