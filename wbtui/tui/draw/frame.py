"""What stands around table and card: where one is and what the numbers mean, what is shown, keys, service. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len

from wbtui.display import fit, safe_token_text
from wbtui.tui import keymap
from wbtui.tui.draw.line import Line, cut, spread, width_of
from wbtui.tui.draw.rows import head_of
from wbtui.tui.facts import Meaning
from wbtui.tui.state import SortKey

SERVICE_WORDS = {
    "unknown": ("", "dim"),
    "starting": ("service starting", "dim"),
    "up": ("service up", "dim"),
    "down": ("service down (read-only browsing)", "warn"),
    "other version": ("service of another version (read-only browsing; J, then R restarts it)", "warn"),
}


def memory_text(devices: Sequence[Mapping[str, Any]]) -> str:
    """``cuda:0 3.1/24 GiB``: memory in use by anyone and in all, of the first device and how many more there are."""
    parts = []
    for device in devices:
        memory = device.get("memory")
        if isinstance(memory, list) and len(memory) == 2:
            used, total = (float(n) / 2**30 for n in memory)
            parts.append(f"{safe_token_text(str(device.get('device', '')))} {used:.1f}/{total:.0f} GiB")
    parts = list(dict.fromkeys(parts))
    return parts[0] + (f" +{len(parts) - 1}" if len(parts) > 1 else "") if parts else ""


def crumb(parts: Sequence[str], meaning: Meaning | None, width: int) -> Line:
    """``demo › L3 resid_post › #737`` and on the right definition, null, mask; shorter words where it narrows."""
    left: Line = [(" ", "text")]
    for at, part in enumerate(parts):
        if at:
            left.append((" › ", "faint"))
        left.append((safe_token_text(part), "strong" if at == len(parts) - 1 else "text"))
    if meaning is None:
        return cut(left, width)
    long = f"definition {meaning.definition} · {meaning.noise} · {meaning.mask} "
    short = f"{meaning.definition} · {meaning.noise} · {meaning.mask} ".replace(" directions", "").replace(
        "noise: ", "noise "
    )
    shorter = short.replace(" tokens", "")
    if " of " in shorter:
        shorter = shorter[: shorter.rindex(" of ")] + " "
    for text in (long, short, shorter):
        if width_of(left) + cell_len(text) + 2 <= width:
            return spread(left, [(text, "dim")], width)
    room = width - cell_len(shorter) - 1
    return [*cut(left, max(room, 10)), *cut([(" " + shorter, "dim")], width - max(room, 10))]


def status(
    *,
    filter: str,
    shown: int,
    total: int,
    computed: int,
    sort: Sequence[SortKey],
    marked: int,
    ranged: int,
    width: int,
    note: str = "",
) -> Line:
    """Filter, counts, order, marks."""
    if filter:
        left: Line = [(" / ", "strong"), (safe_token_text(filter), "text")]
    else:
        left = [(" / ", "faint"), ("no filter", "faint")]
    if note:
        left += [("   ", "text"), (safe_token_text(note), "warn")]
    keys = " ".join(head_of(name) + ("▼" if falling else "▲") for name, falling in sort)
    count = f"{shown:,} of {total:,}" if filter else f"{total:,} feature" + ("" if total == 1 else "s")
    if computed < total:
        count += f" · {computed:,} computed"
    tail: Line = [(count, "text"), ("    sort ", "dim"), (keys, "text")]
    if ranged:
        tail += [(f"    range of {ranged:,}", "mark")]
    if marked:
        tail += [(f"    {marked:,} marked", "mark")]
    tail.append((" ", "text"))
    if width_of(left) + width_of(tail) + 2 > width:
        tail = [span for span in tail if span[0] != "    sort "]
        tail = [(t if t != keys else "  " + keys, r) for t, r in tail]
    return spread(left, tail, width)


def separator(width: int, at: int | None, *, up: bool = False, note: str = "", role: str = "dim") -> Line:
    """The rule under the head, with a ``┬`` where the divider begins; a note sits on it."""
    text = "─" * width
    if at is not None and 0 <= at < width:
        text = text[:at] + ("┴" if up else "┬") + text[at + 1 :]
    if not note:
        return [(text, "rule")]
    note = safe_token_text(note)  # errors name what was found
    shown = fit(note, min(cell_len(note), max(0, width - 6)))
    start = 3
    end = start + cell_len(shown) + 2
    return [(text[:start], "rule"), (f" {shown} ", role), (text[end:], "rule")]


def shares(summary: Mapping[str, Any] | None, width: int) -> list[Line]:
    """The class shares of the features and, under them, of the noise."""
    if summary is None:
        return [[("   …", "dim")], []]
    gap = "   " if width >= 52 else "  "
    features = _share_text(summary["features"], gap)
    noise = summary.get("noise")
    out: list[Line] = [cut([("   ", "text"), (features, "text")], width)]
    out.append(cut([("   noise: ", "dim"), (_share_text(noise, gap) if noise else "no null yet", "dim")], width))
    return out


def share_note(summary: Mapping[str, Any] | None) -> str:
    """The same on one line, for the rule between table and card."""
    if summary is None:
        return ""
    noise = summary.get("noise")
    text = _share_text(summary["features"], " · ")
    if noise:
        text += "  (noise " + " · ".join(_percent(noise[k]) for k in ("coherent", "single", "diffuse")) + ")"
    return text


def _share_text(shares_: Mapping[str, float], gap: str) -> str:
    words = (("set", "coherent"), ("one", "single"), ("mix", "diffuse"), ("none", "none"))
    return gap.join(f"{word} {_percent(shares_[key])} %" for word, key in words)


def _percent(share: float) -> str:
    if not math.isfinite(share):
        return "–"
    x = share * 100
    return f"{x:.1f}" if 0 < x < 9.95 else f"{x:.0f}"


def keys_line(context: str, width: int) -> Line:
    """The footer's keys."""
    line: Line = [(" ", "text")]
    for key, word in keymap.footer(context, width - 1):
        line += [(key, "key"), (f" {word}  ", "dim")]
    return cut(line, width)


def state_line(parts: Sequence[tuple[str, str]], width: int) -> Line:
    """The last line: what is ready, what runs, the service. Empty parts are left out."""
    line: Line = [(" ", "text")]
    for text, role in parts:
        if not text:
            continue
        if len(line) > 1:
            line.append((" · ", "faint"))
        line.append((safe_token_text(text), role))
    return cut(line, width)


def job_text(job: Mapping[str, Any]) -> str:
    """A running job in a few words: what, how far, how long."""
    share = float(job.get("fraction") or 0.0)
    text = f"{ANALYSES.get(str(job.get('now')), 'computing')} {share * 100:.0f} %"
    eta = job.get("eta")
    if isinstance(eta, (int, float)) and math.isfinite(eta):
        text += f", {duration(float(eta))} left"
    return text


ANALYSES = {
    "vocab": "token strings", "mask": "token mask", "null": "noise", "tokens": "features", "None": "computing",
    "attention": "heads", "attention_null": "noise in heads", "ov": "what heads write", "ov_null": "noise of heads",
    "match": "the match of two SAEs", "neighbours": "nearest features", "neighbours_null": "noise of cosines",
}  # fmt: skip


def duration(seconds: float) -> str:
    """``12 s``, ``3 min``, ``2.5 h``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


def too_small(width: int, height: int) -> list[Line]:
    """What a terminal below 60×20 shows."""
    return [
        [(fit("wbtui needs 60×20", width), "strong")],
        [(fit(f"this is {width}×{height}", width), "dim")],
        [(fit("enlarge it; q quits", width), "dim")],
    ]
