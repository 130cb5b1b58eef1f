"""The start screen's two lists: what is on disk first, then what the registry of published SAEs knows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from rich.cells import cell_len

from wbtui.catalog.models import ModelInfo
from wbtui.catalog.registry import Entry, canonical_model, models, releases_of
from wbtui.display import safe_token_text
from wbtui.tui.data import SaeRow
from wbtui.tui.draw.line import Line, cut, lit, rule, spread
from wbtui.tui.fuzzy import Fuzzy

STATES = {"complete": ("●", "mark"), "partial": ("◐", "warn"), "absent": ("○", "dim"), "error": ("!", "error")}


def nowhere(n: int) -> frozenset[int]:
    """No matched characters."""
    return frozenset()


@dataclass(frozen=True)
class PublishedModel:
    """A model that published SAEs are for and that is not on this disk."""

    name: str
    saes: int


def published_models(local: Sequence[ModelInfo]) -> list[PublishedModel]:
    """The registry's models that are not on disk, by name."""
    here = {canonical_model(model.name) for model in local}
    return [PublishedModel(name, n) for name, n in sorted(models().items()) if canonical_model(name) not in here]


def published_saes(model: str, local: Sequence[SaeRow]) -> list[Entry]:
    """The registry's SAEs for a model that are not on disk: canonical releases, and those of the stream, first."""
    here = {row.info.name.partition(":")[0] for row in local}
    found = sorted(releases_of(model), key=lambda r: ("canonical" not in r.name, "-res" not in r.name))
    return [entry for release in found for entry in release.saes if entry.name not in here]


Item = TypeVar("Item")


def model_text(model: ModelInfo | PublishedModel) -> str:
    """What a model is found by: its name, and of one on disk its type."""
    name = safe_token_text(model.name)
    return f"{name} {model.model_type}" if isinstance(model, ModelInfo) else name


def sae_text(item: SaeRow | Entry) -> str:
    """What an SAE is found by: its name, and of one on disk its hook and kind too."""
    if isinstance(item, Entry):
        return safe_token_text(item.name)
    return f"{safe_token_text(item.info.name)} {item.info.site} {item.info.architecture} {item.info.format}"


class Shelf(Generic[Item]):
    """A list that is narrowed by a few letters: what is on disk stays in front, of each part the best first.

    Args:
        items: models, or the SAEs of one.
        text: what an item is found by, beginning with its name as it is drawn.
    """

    def __init__(self, items: Sequence[Item], text: Callable[[Item], str]) -> None:
        self.items = list(items)
        published = (PublishedModel, Entry)
        self.fuzzy = Fuzzy([text(item) for item in items], [isinstance(item, published) for item in items])
        self._asked = ""
        self._found = self.items
        self._rows = list(range(len(self.items)))

    def find(self, query: str) -> list[Item]:
        """The items that a query's words match; published SAEs stay together by release, the best release first."""
        if query != self._asked:
            rows = self.fuzzy.find(query).rows.tolist()
            if query.split():
                releases: dict[str, int] = {}
                for n, row in enumerate(rows):
                    releases.setdefault(getattr(self.items[row], "release", ""), n)
                rows.sort(key=lambda row: releases[getattr(self.items[row], "release", "")])
            self._asked, self._rows, self._found = query, rows, [self.items[row] for row in rows]
        return self._found

    def places(self, n: int) -> frozenset[int]:
        """Which characters of the n-th item found are matched."""
        return self.fuzzy.places(self._rows[n], self._asked) if self._asked else frozenset()


def window(lines: list[Line], at: int, room: int) -> list[Line]:
    """The part of a long list that holds line ``at``, near its middle."""
    top = max(0, min(at - room // 2, len(lines) - room))
    return lines[top : top + room]


def model_lines(
    found: Sequence[ModelInfo | PublishedModel],
    at: int,
    active: bool,
    width: int,
    room: int,
    places: Callable[[int], frozenset[int]] = nowhere,
) -> list[Line]:
    """The left list, its section of published models under a rule of its own."""
    lines: list[Line] = []
    place = 0
    begun = False
    for n, model in enumerate(found):
        if isinstance(model, PublishedModel) and not begun:
            begun = True
            lines.append(rule(width, "REGISTRY", "not on this disk"))
        here = n == at
        place = len(lines) if here else place
        line: Line = [("▸ " if here and active else "› " if here else "  ", "strong")]
        if isinstance(model, PublishedModel):
            line += lit(safe_token_text(model.name), places(n), "strong" if here else "dim")
            about = f"{model.saes:,} SAEs"
        else:
            line += lit(safe_token_text(model.name), places(n), "strong" if here else "text")
            about = safe_token_text(f"{model.model_type} · {model.n_layers} layers · {model.d_model}")
        lines.append(spread(line, [(" " + about, "dim")], width))
    return window(lines, place, room)


def sae_lines(
    found: Sequence[SaeRow | Entry],
    at: int,
    active: bool,
    width: int,
    room: int,
    places: Callable[[int], frozenset[int]] = nowhere,
) -> list[Line]:
    """The right list, likewise; published SAEs under the name of their release."""
    wide = max([16, *(cell_len(safe_token_text(row.info.name)) for row in found if isinstance(row, SaeRow))])
    plan: list[int | str] = []
    place = 0
    release = ""
    firsts: dict[str, int] = {}
    for n, item in enumerate(found):  # where everything stands; drawn is the window alone
        if isinstance(item, Entry) and item.release != release:
            plan += ([""] if not release else []) + [item.release]
            firsts[item.release] = n
            release = item.release
        place = len(plan) if n == at else place
        plan.append(n)
    top = max(0, min(place - room // 2, len(plan) - room))

    def drawn(what: int | str) -> Line:
        if isinstance(what, str):
            if what:
                return cut([("  ", "dim"), *lit(safe_token_text(what), places(firsts[what]), "text")], width)
            count = sum(isinstance(other, Entry) for other in found)
            return rule(width, f"REGISTRY  {count:,} published", "not on this disk")
        item = found[what]
        here = what == at and active
        if isinstance(item, Entry):
            return _published(item, here, width, places(what))
        return _row(item, here, width, wide, places(what))

    return [drawn(what) for what in plan[top : top + room]]


def _published(entry: Entry, here: bool, width: int, places: frozenset[int]) -> Line:
    l0 = "" if entry.l0 is None else f" L0 {entry.l0:g}"
    line: Line = [("▸ " if here else "  ", "strong"), ("↓ ", "dim")]
    own = frozenset(at - len(entry.release) - 1 for at in places)
    line += lit(safe_token_text(entry.sae), own, "strong" if here else "dim", width - 4 - len(l0))
    return spread(line, [(l0, "dim")], width)


def _row(row: SaeRow, here: bool, width: int, wide: int, places: frozenset[int]) -> Line:
    mark, role = STATES[row.state]
    info = row.info
    line: Line = [("▸ " if here else "  ", "strong"), (f"{mark} ", role)]
    room = min(wide, max(16, width - 30))
    name = lit(safe_token_text(info.name), places, "strong" if here else "text", room)
    line += [*cut(name, room), (" ", "text")]
    about = row.line or f"layer {info.layer} {info.site} · {info.architecture} · {info.d_sae:,} features"
    line.append((safe_token_text(about), "error" if row.line else "dim"))
    return cut(line, width)
