"""Rows of an answer as lines: find's hits, a feature's edges, a feature's flow. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len

from wbtui.display import fit, safe_token_text
from wbtui.features.answers import left_out, tail_text, value, words_text
from wbtui.features.flow_text import bar, cosine_text, missing_modules, sentence
from wbtui.tui.draw.line import Line, cut, wrap

Row = Mapping[str, Any]
WIDTHS = {"score": 7, "cosine": 6, "z": 6, "tail": 7, "rank": 6, "weight": 8, "share": 7, "via": 7}
HEADS = {"score": "score", "cosine": "cos", "z": "z", "tail": "tail", "rank": "rank", "weight": "weight",
         "share": "share", "via": "via"}  # fmt: skip
FIND_COLUMNS = ("score", "cosine", "z", "tail", "rank")
EDGE_COLUMNS = ("via", "weight", "share", "tail")
LISTS = {"up": "▲ up", "down": "▼ down", "heads": "▼ head"}
NOISE = 0.01
"""A tail above this is drawn as inside noise."""


def short(row: Row) -> str:
    """A feature without its model: ``L3 #67``."""
    return f"{row['sae']}#{row['feature']}"


def cell(row: Row, name: str) -> str:
    """One number of a row as text."""
    if name == "via":
        return safe_token_text(str(row.get("via") or "direct"))
    number = value(row, name)
    if name == "tail":
        return tail_text(number)
    if math.isnan(number):
        return "–"
    if name == "share":
        return f"{100 * number:.2f} %"
    if name == "rank":
        return f"{int(number):,}"
    return f"{number:+.3f}" if name == "weight" else f"{number:.3f}" if name == "score" else f"{number:.2f}"


def columns_for(width: int, edges: bool) -> tuple[str, ...]:
    """The columns that fit: words keep at least 24 cells."""
    names = EDGE_COLUMNS if edges else FIND_COLUMNS
    drop = ("share", "via") if edges else ("cosine", "z")
    for gone in range(len(drop) + 1):
        kept = tuple(n for n in names if n not in drop[:gone])
        if name_width(edges) + 4 + sum(WIDTHS[n] + 1 for n in kept) + 24 <= width:
            return kept
    return kept


def name_width(edges: bool) -> int:
    """Cells of a feature's name."""
    return 16 + (7 if edges else 0)


def header(columns: Sequence[str], width: int, edges: bool, sort: str, falling: bool) -> Line:
    """The columns' heads, the order's arrow at its own."""

    def head(name: str, text: str, size: int) -> str:
        arrow = ("▼" if falling else "▲") if name == sort else ""
        return (text + arrow).rjust(size)

    line = "   " + ("list    " if edges else "") + "feature".ljust(name_width(edges) - (7 if edges else 0))
    line += " ".join(head(n, HEADS[n], WIDTHS[n]) for n in columns)
    return cut([(line + "  words", "head")], width)


def row_line(row: Row, columns: Sequence[str], width: int, *, at: bool, marked: bool, edges: bool) -> Line:
    """One row; dimmed where the score lies inside noise."""
    tail = value(row, "tail")
    ink = "dim" if math.isnan(tail) or tail > NOISE else "text"
    left = ("▸" if at else " ") + ("●" if marked else " ") + " "
    line: Line = [(left, "mark" if marked else "strong")]
    if edges:
        line.append((LISTS[row["list"]].ljust(8), "dim"))
    name = fit(safe_token_text(short(row)), name_width(edges) - (7 if edges else 0))
    line.append((name, "strong" if at else ink))
    line.append((" ".join(cell(row, n).rjust(WIDTHS[n]) for n in columns) + "  ", ink))
    room = width - sum(cell_len(t) for t, _ in line)
    others = row.get("others")
    if others is not None and room >= 70:
        half = room // 2
        line.append((fit(words_text(row.get("words") or ()), half - 2), "writes" if ink == "text" else "dim"))
        line.append(("  " + fit("other: " + words_text(others), room - half), "dim"))
    else:
        line.append((fit(words_text(row.get("words") or ()), max(0, room)), "writes" if ink == "text" else "dim"))
    return cut(line, width)


def detail_lines(row: Row, width: int, edges: bool) -> list[Line]:
    """What is known of the row under the arrow, in words."""
    out: list[Line] = [[(safe_token_text(str(row["address"])), "strong")]]
    if edges:
        through = f"through {cell(row, 'via')}, attending fully" if row.get("via") else "directly"
        toward = "feeds it" if row["list"] == "up" else "reads it"
        sign = "excites" if value(row, "weight") > 0 else "inhibits"
        said = f"{toward} {through}: {sign}, {cell(row, 'weight')}; {cell(row, 'share')} of its list’s edges"
        among = " among random directions" if width >= 112 else ""
        out.append([(f"{said}; tail {tail_text(value(row, 'tail'))}{among}", "text")])
    else:
        places = [
            f"{'−' if r['sign'] < 0 else ''}{safe_token_text(r['word'].strip() or r['word'])} {r['rank'] or 'masked'}"
            for r in row.get("ranks") or ()
        ]
        long = width >= 112
        own = "its place in the feature’s own list: " if long else "place in its own list: "
        among = f" among random directions of {safe_token_text(row['sae'])}" if long else " of random directions"
        words = own + ", ".join(places) if places else ""
        out.append([(f"tail {tail_text(value(row, 'tail'))}{among}   {words}", "text")])
    out.append([("writes " if edges else "list   ", "dim"), (words_text(row.get("words") or (), 12), "writes")])
    return [cut(line, width) for line in out]


def meaning_line(answer: Row) -> str:
    """What a find query was taken to mean."""
    parts = []
    for word in answer.get("words") or ():
        tokens = " ".join(f"“{t['text']}”" for t in word["tokens"][:6])
        more = f" +{len(word['tokens']) - 6}" if len(word["tokens"]) > 6 else ""
        parts.append(f"{'−' if word['sign'] < 0 else '+'} {tokens}{more}")
    if answer.get("position"):
        parts.append(f"a direction at {answer['position']}")
    parts += [f"without {s['sae']}: {s['why']}" for s in answer.get("skipped") or ()]
    parts += [line for sae in answer.get("saes") or () if (line := left_out(sae))]
    return safe_token_text("   ".join(parts) or " ")


def totals_line(answer: Row) -> str:
    """What an ``edges`` answer counts, list by list."""
    parts = []
    for name in ("up", "down", "heads"):
        part = answer[name]
        word = f"heads of L{part['layer']}" if name == "heads" and part.get("layer") is not None else name
        parts.append(
            f"{word}: {part['absent']}" if part["absent"] else f"{word} {part['count']:,} Σ {part['total']:.3g}"
        )
    return " · ".join(parts)


def flow_rows(answer: Row, at: int, width: int) -> list[Line]:
    """A chain, first layer first; what lies beyond a cut is dim and marked so."""
    size, name = (20, 16) if width >= 110 else (8, 11)
    # a module that has no SAE here has no column
    cosines = ["r", *(k for k in ("m", "a") if k.upper() in answer["modules"])]
    heads = " ".join(f"{k:>5}" for k in cosines)
    out: list[Line] = [
        cut([(f"   {'feature':<{name}}{'step':<{size + 6}}{heads}   {'class':<24}words", "head")], width)
    ]
    for i, node in enumerate(answer["nodes"]):
        here, held = node["step"] == 0, node["held"]
        ink = "text" if held else "dim"
        step = "▸ this one" if here else f"{bar(node['cosine'], size)} {node['cosine']:.2f}"
        line: Line = [("▸ " if i == at else "  ", "strong"), (" " if held else "╎", "dim")]
        line.append((fit(safe_token_text(short(node)), name - 1) + " ", "strong" if i == at or here else ink))
        line.append((fit(step, size + 6), "reads" if held else "dim"))
        line.append((" ".join(f"{cosine_text(node[k]):>5}" for k in cosines) + "   ", ink))
        unknown = node["class"].startswith("unknown")
        line.append((fit("first dictionary" if unknown else node["class"], 24), ink))
        line.append((words_text(node["words"], 6), "writes" if held else "dim"))
        out.append(cut(line, width))
    return out


def flow_notes(answer: Row, which: str, width: int) -> list[Line]:
    """What the chain says, its thresholds, and what cannot be said."""
    bars = answer["thresholds"]
    shown: Line = [("high from  ", "dim")]
    for name, words in (("r", "stream before"), ("m", "MLP"), ("a", "attention")):
        on = name == which
        shown += [(f"{'▸' if on else ' '}{name} {bars[name]:.2f} {words}  ", "strong" if on else "text")]
    out: list[Line] = [[(sentence(answer), "strong")], shown]
    notes = "best decoder cosine of each step; r, m, a: with the stream before, the layer’s MLP and attention output."
    if missing_modules(answer):
        notes += (
            f" {missing_modules(answer)}, so that carried and processed, newborn and unexplained are not told apart."
        )
    notes += (
        " ╎ beyond a cut: a step fell below r. After arXiv 2502.03032; data-free: what is alike, not what causes it."
    )
    return [cut(line, width) for line in out] + wrap(notes.split(), width, "dim")
