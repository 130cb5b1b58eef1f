"""The match page's drawing: shares beside those of noise and control, and one of its lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from wbtui.display import fit, safe_token_text
from wbtui.features.match import LISTS, Matching
from wbtui.tui.draw.line import Line, cut, rule, spread

if TYPE_CHECKING:
    from wbtui.catalog.saes import SaeInfo
    from wbtui.features.table import FeatureTable

TITLES = {"matched": "matched", "lost": "lost", "new": "new", "splits": "split"}
MEANINGS = {
    "matched": "each the other's nearest, at or above the bar",
    "lost": "of A: nothing in B is at or above the bar; beside each, its nearest",
    "new": "of B: nothing in A is at or above the bar; beside each, its nearest",
    "splits": "of A: the nearest of two or more of B's, each at or above the bar",
}


def choices_lines(saes: Sequence[SaeInfo], at: int, why: str, width: int) -> list[Line]:
    """The SAEs that can be matched with."""
    out = [rule(width, "MATCH WITH", "SAEs at the same place of the stream"), []]
    if not saes:
        return [*out, [("– no other SAE of this model is at this place", "dim")], [],
                [("`wbtui match A MODEL@SAE` matches with one of another model or folder", "dim")]]  # fmt: skip
    for i, sae in enumerate(saes):
        about = safe_token_text(f"{sae.architecture}  {sae.hook_name}")
        text = f"{fit(safe_token_text(sae.name), 28)} {sae.d_sae:>9,} features  {about}"
        out.append([("▸ " if i == at else "  ", "strong"), (fit(text, width - 2), "strong" if i == at else "text")])
    if why:
        out += [[], [(fit(safe_token_text(why), width), "error")]]
    return out


def share_lines(matching: Matching, control: Matching | None, width: int) -> list[Line]:
    """Both directions, noise and control."""
    names = 30 if width >= 90 else 24
    head = f"{'':{names}}{'median':>8}{'≥ .7':>9}{'≥ .9':>9}{'mutual':>9}"
    out: list[Line] = [[(fit(head, width), "head")]]

    def line(name: str, median: float | None, above: dict[str, Any], mutual: float | None, role: str) -> Line:
        middle = "–" if median is None else f"{median:.2f}".replace("0.", ".", 1)
        text = f"{fit(name, names)}{middle:>8}{_percent(above['0.7']):>9}{_percent(above['0.9']):>9}"
        return cut([(text + f"{_percent(mutual):>9}" if mutual is not None else text, role)], width)

    a, b = matching.shares("a"), matching.shares("b")
    out.append(line("A's nearest in B", a["median"], a["above"], a["mutual"]["any"], "text"))
    out.append(line("B's nearest in A", b["median"], b["above"], b["mutual"]["any"], "text"))
    for kind, null in a["random"].items():
        words = {"isotropic": "random directions in B", "decoder_cov": "with A's covariance in B"}[kind]
        out.append(line(words, null["median"], null["above"], None, "dim"))
    if control is not None:
        c = control.shares("a")
        name = safe_token_text(f"A's in {control.b_name.rpartition('@')[2]}")
        out.append(line(name, c["median"], c["above"], c["mutual"]["any"], "dim"))
    return out


def tabs_line(matching: Matching, which: str, bar: float, width: int) -> Line:
    """The lists with their counts, the one that is shown in capitals; the bar."""
    counts = {
        "matched": len(matching.matched(bar)), "lost": len(matching.lost(bar)), "new": len(matching.new(bar)),
        "splits": len(matching.splits(bar)),
    }  # fmt: skip
    line: Line = []
    for name in LISTS:
        title = TITLES[name].upper() if name == which else TITLES[name]
        line.append((f"{'│ ' if line else ''}{title} {counts[name]:,} ", "strong" if name == which else "dim"))
    return spread(line, [(f"bar {bar:.2f} ← →", "head")], width)


def row_line(
    row: dict[str, Any], which: str, a: FeatureTable, b: FeatureTable | None, *, cursor: bool, width: int
) -> Line:
    """One line of a list: A's feature, the cosine, B's; the one that the list is about stands first."""
    children = row["b"] if isinstance(row["b"], list) else [row["b"]]
    cosines = row["cos"] if isinstance(row["cos"], list) else [row["cos"]]
    half = (width - 2 - 9) // 2
    parts = " ".join(f"#{c}" for c in children) if which == "splits" else f"#{children[0]}"
    left = _side(a, row["a"], f"#{row['a']}", half)
    right = _side(b, children[0], parts, width - 2 - 9 - half)
    first, second = (right, left) if which == "new" else (left, right)
    shown = f"{cosines[0]:.2f}".replace("0.", ".", 1)
    mark = "=" if row.get("mutual") else "~" if which != "splits" else f"×{len(children)}"
    middle: Line = [(f"{shown:>5} {mark:<2} ", "head")]
    return [("▸ " if cursor else "  ", "strong"), *first, *middle, *second]


def _side(table: FeatureTable | None, row: int, name: str, width: int) -> Line:
    head = fit(name, max(7, min(len(name) + 1, width // 2)))
    if table is None or row < 0 or not table.available[row]:
        return cut([(head, "text"), ("…" if row >= 0 else "–", "faint")], width)
    kind = table.kind(row)
    words = " ".join(w.text for w in table.words(row, k=6) if not w.inside_null) or "(inside noise)"
    role = "dim" if words.startswith("(") else "text"
    return cut([(head, "text"), (fit(kind, 7), "dim" if kind == "none" else "writes"), (" " + words, role)], width)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"
