"""The start screen's two lists: what is on disk first, then what the registry of published SAEs knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wbtui.catalog.models import ModelInfo
from wbtui.catalog.registry import Entry, canonical_model, models, releases_of
from wbtui.display import fit, safe_token_text
from wbtui.tui.data import SaeRow
from wbtui.tui.draw.line import Line, cut, rule, spread

STATES = {"complete": ("●", "mark"), "partial": ("◐", "warn"), "absent": ("○", "dim"), "error": ("!", "error")}


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


def matching_models(found: Sequence[ModelInfo | PublishedModel], text: str) -> list[ModelInfo | PublishedModel]:
    """Those whose name or type holds the text."""
    wanted = text.casefold()
    return [
        m for m in found
        if wanted in m.name.casefold() or (isinstance(m, ModelInfo) and wanted in m.model_type.casefold())
    ]  # fmt: skip


def matching_saes(found: Sequence[SaeRow | Entry], text: str) -> list[SaeRow | Entry]:
    """Those whose name, hook or architecture holds every word of the text."""
    words = text.casefold().split()

    def about(item: SaeRow | Entry) -> str:
        if isinstance(item, SaeRow):
            return f"{item.info.name} {item.info.site} {item.info.architecture} {item.info.format}".casefold()
        return item.name.casefold()

    return [item for item in found if all(word in about(item) for word in words)]


def window(lines: list[Line], at: int, room: int) -> list[Line]:
    """The part of a long list that holds line ``at``, near its middle."""
    top = max(0, min(at - room // 2, len(lines) - room))
    return lines[top : top + room]


def model_lines(
    found: Sequence[ModelInfo | PublishedModel], at: int, active: bool, width: int, room: int
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
            line.append((safe_token_text(model.name), "strong" if here else "dim"))
            about = f"{model.saes:,} SAEs"
        else:
            line.append((safe_token_text(model.name), "strong" if here else "text"))
            about = f"{model.model_type} · {model.n_layers} layers · {model.d_model}"
        lines.append(spread(line, [(" " + about, "dim")], width))
    return window(lines, place, room)


def sae_lines(found: Sequence[SaeRow | Entry], at: int, active: bool, width: int, room: int) -> list[Line]:
    """The right list, likewise; published SAEs under the name of their release."""
    wide = max([16, *(len(row.info.name) for row in found if isinstance(row, SaeRow))])
    plan: list[int | str] = []
    place = 0
    release = ""
    for n, item in enumerate(found):  # where everything stands; drawn is the window alone
        if isinstance(item, Entry) and item.release != release:
            plan += ([""] if not release else []) + [item.release]
            release = item.release
        place = len(plan) if n == at else place
        plan.append(n)
    top = max(0, min(place - room // 2, len(plan) - room))

    def drawn(what: int | str) -> Line:
        if isinstance(what, str):
            if what:
                return cut([("  ", "dim"), (safe_token_text(what), "text")], width)
            count = sum(isinstance(other, Entry) for other in found)
            return rule(width, f"REGISTRY  {count:,} published", "not on this disk")
        item = found[what]
        here = what == at and active
        return _published(item, here, width) if isinstance(item, Entry) else _row(item, here, width, wide)

    return [drawn(what) for what in plan[top : top + room]]


def _published(entry: Entry, here: bool, width: int) -> Line:
    l0 = "" if entry.l0 is None else f" L0 {entry.l0:g}"
    line: Line = [("▸ " if here else "  ", "strong"), ("↓ ", "dim")]
    line.append((from_end(safe_token_text(entry.sae), width - 4 - len(l0)), "strong" if here else "dim"))
    return spread(line, [(l0, "dim")], width)


def _row(row: SaeRow, here: bool, width: int, wide: int) -> Line:
    mark, role = STATES[row.state]
    info = row.info
    line: Line = [("▸ " if here else "  ", "strong"), (f"{mark} ", role)]
    name = from_end(safe_token_text(info.name), min(wide, max(16, width - 30)))
    line.append((fit(name, min(wide, max(16, width - 30))) + " ", "strong" if here else "text"))
    about = row.line or f"layer {info.layer} {info.site} · {info.architecture} · {info.d_sae:,} features"
    line.append((safe_token_text(about), "error" if row.line else "dim"))
    return cut(line, width)


def from_end(name: str, width: int) -> str:
    """A long name's end: in paths it is what tells one from another."""
    return name if len(name) <= width else "…" + name[len(name) - max(0, width - 1) :]
