"""The set page's drawing: words and heads that marked features share, and their cosines as a block of cells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.cells import cell_len

from wbtui.display import fit
from wbtui.features.marked import Part, SharedHead, SharedWords, chain
from wbtui.tui.draw.line import Line, cut, rule, spread, wrap

POSITIVE = "░▒▓█"
NEGATIVE = "-=≡#"
STEPS = (0.2, 0.4, 0.6, 0.8)
"""Absolute cosines from which a cell is one step darker; what lies inside noise is a dot whatever its size."""
NUMBERS_BELOW = 16
NUMBER_CELLS = 6
"""Features up to which cells hold numbers where there is room."""


def words_block(shared: SharedWords | None, of: int, width: int, lines: int) -> list[Line]:
    """Words that two or more share, with the number that chance gives in the heading."""
    side = "WRITES" if shared is None or shared.side == "writes" else "READS"
    if shared is None:
        return [rule(width, f"{side} IN COMMON"), [("– not computed", "dim")]]
    noise = f"{shared.total} shared · {of} at random: {shared.random:.1f} (99 %: {shared.random_p99:.0f})"
    if math.isnan(shared.random):
        noise = f"{shared.total} shared"
    out = [rule(width, f"{side} IN COMMON", noise)]
    inside = not math.isnan(shared.random_p99) and shared.total <= shared.random_p99
    for word in shared.words[:lines]:
        which = " ".join(word.features[:6]) + (" …" if len(word.features) > 6 else "")
        right: Line = [(f"{word.best_z:6.1f}  {100 * word.base:5.1f} %", "dim")]
        left: Line = [
            (f"{word.count:>3} ", "dim" if inside else "strong"),
            (fit(word.text, min(18, max(8, width // 4))) + " ", "dim" if inside else "writes"),
            (which, "dim"),
        ]
        out.append(spread(left, right, width))
    if not shared.words:
        out.append([("– no word beyond noise is in two of them", "dim")])
    elif inside:
        out.append([("no more than features at random share", "dim")])
    elif shared.total > lines:
        out.append([(f"and {shared.total - lines} more (e writes all)", "dim")])
    if shared.without:
        out.append([(f"– {shared.without} of them have no list: their SAEs are not computed (C)", "dim")])
    return out


def heads_block(heads: Sequence[SharedHead], why: str, width: int, lines: int) -> list[Line]:
    """Heads that see several of them above the noise, beside the share of all features that they see."""
    out = [rule(width, "HEADS IN COMMON", "of them · of all · by chance")]
    missing = wrap(("– " + why).split(), width, "dim") if why else []
    if not heads:
        return out + (missing or [[("– no head sees any of them above the noise", "dim")]])
    for head in heads[:lines]:
        faint = head.tail > 0.05 or head.count < 2
        name = f"L{head.layer}.H{head.head} {'as query' if head.side == 'query' else 'as key':<8}"
        right = f"{head.count:>3} of {head.of} · {100 * head.base:4.1f} % · {_tail_text(head.tail)}"
        out.append(spread([(name, "dim" if faint else "text")], [(right, "dim" if faint else "text")], width))
    if all(head.tail > 0.05 for head in heads):
        out.append([("none sees more of them than chance would", "dim")])
    return out + missing


def _tail_text(tail: float) -> str:
    return f"{tail:.3f}" if tail >= 0.001 else f"{tail:.0e}".replace("e-0", "e-")


def level(answer: dict[str, Any]) -> float:
    """The absolute cosine that 99 % of pairs of random directions stay below: the larger over kinds."""
    return max((float(null["pair_p99"]) for null in answer["null"].values()), default=math.nan)


def cosines_block(parts: Sequence[Part], answer: dict[str, Any], width: int) -> list[Line]:
    """Cosines of decoder rows, like beside like; a cell is a number where there is room, else a glyph of its size."""
    features = answer["features"]
    n = len(features)
    if n < 2:
        return [rule(width, "COSINES"), [("– two features with a direction are needed", "dim")]]
    cosines = np.asarray(answer["cosines"])
    bar = level(answer)
    order = chain(cosines)
    by_name = {part.sae: part for part in parts}
    held_by = [by_name.get(sae, parts[0]) for sae in answer.get("saes") or [""] * n]
    names = [part.name(f) for part, f in zip(held_by, features, strict=True)]
    name_width = max(len(name) for name in names) + 1
    wide = max(NUMBER_CELLS, name_width)
    numbers = n <= NUMBERS_BELOW and name_width + wide * n <= width
    cell = wide if numbers else 2 if name_width + 2 * n <= width else 1
    room = (width - name_width) // cell
    shown = order[:room]
    random = ", ".join(f"{null['rank']:.1f}" for null in answer["null"].values())
    title = f"effective rank {answer['rank']:.1f} of {n} · random {random}"
    out = [rule(width, "COSINES OF DECODERS", title)]
    if not numbers:
        steps = f"{POSITIVE} up to .4 .6 .8 1 · {NEGATIVE} negative"
        out.append([(fit(f"· inside noise: below {bar:.2f} · {steps}", width), "dim")])
    else:
        out.append([(fit(f"(in brackets: inside noise, below {bar:.2f}: 99 % of random pairs)", width), "dim")])
        out.append([(" " * name_width + "".join(names[j].rjust(cell) for j in shown), "head")])
    for i in shown:
        line: Line = [(fit(names[i], name_width), "text")]
        for j in shown:
            line.append(_cell(float(cosines[i, j]), i == j, bar, cell, numbers))
        words = ""
        left = width - name_width - cell * len(shown) - 2
        if left >= 12:
            words = "  " + " ".join(w.text for w in held_by[i].table.words(features[i], k=4) if not w.inside_null)
        line.append((fit(words, left + 2) if words else "", "dim"))
        out.append(cut(line, width))
    if len(shown) < n:
        out.append([(f"{n - len(shown)} more features do not fit (e writes all)", "dim")])
    if answer["absent"]:
        gone = zip(answer.get("absent_saes") or [""] * len(answer["absent"]), answer["absent"], strict=True)
        bare = " ".join(by_name.get(sae, parts[0]).name(f) for sae, f in list(gone)[:8])
        out.append([(f"without a direction: {bare}", "dim")])
    return out


def _cell(value: float, own: bool, bar: float, width: int, numbers: bool) -> tuple[str, str]:
    inside = not math.isnan(bar) and abs(value) <= bar
    role = "faint" if own else "dim" if inside else "writes" if value > 0 else "against"
    if own:
        return ("\\".rjust(width) if numbers else "\\" * width, "faint")
    if numbers:
        text = f"{value:.2f}".replace("-0.00", "0.00").replace("0.", ".", 1)
        return ((f"({text})" if inside and width >= cell_len(text) + 2 else text).rjust(width), role)
    if inside:
        return ("·" * width, role)
    glyphs = POSITIVE if value > 0 else NEGATIVE
    step = max(0, sum(abs(value) >= s for s in STEPS) - 1)
    return (glyphs[step] * width, role)
