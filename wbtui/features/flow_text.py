"""A feature's flow as text and as a picture; the numbers are the service's (:mod:`wbtui.compute.flow`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

from rich.cells import cell_len

from wbtui.display import fit, safe_token_text
from wbtui.features.answers import words_text

Answer = Mapping[str, Any]
BAR = 20
NOTE = "best decoder cosine with the stream before (r), the layer's MLP (m) and attention (a); after arXiv 2502.03032"


def cosine_text(match: Mapping[str, Any] | None) -> str:
    """A match's cosine, ``–`` where there is no dictionary."""
    return "–" if match is None else f"{match['cosine']:.2f}"


def bar(cosine: float | None, width: int = BAR) -> str:
    """A bar of a cosine from 0 to 1."""
    filled = round(max(0.0, min(1.0, cosine or 0.0)) * width)
    return "█" * filled + "·" * (width - filled)


def sentence(answer: Answer) -> str:
    """What becomes of the feature, in one line."""
    ends = answer["ends"]
    born = f"born at L{answer['born']}" + (" (first SAE)" if ends["back"] != "cut" else "")
    gone = f"gone after L{answer['gone']}" + (" (last SAE)" if ends["forward"] != "cut" else "")
    return f"{answer['class']} · {born} · {gone}"


def missing_modules(answer: Answer) -> str:
    """Which modules have no dictionary, in words; empty where both have one."""
    absent = [word for name, word in (("M", "MLP"), ("A", "attention")) if name not in answer["modules"]]
    return f"no SAE of the {' or '.join(absent)} output here" if absent else ""


def flow_lines(answer: Answer) -> list[str]:
    """The chain as aligned plain text, first layer first."""
    bars = answer["thresholds"]
    out = [f"{answer['address']}  {sentence(answer)}"]
    out.append(f"  high: r {bars['r']:g}, m {bars['m']:g}, a {bars['a']:g} · {NOTE}")
    if missing_modules(answer):
        out.append(f"  {missing_modules(answer)}: such classes stay open")
    names = [safe_token_text(n["address"]) for n in answer["nodes"]]
    width = max(map(cell_len, names))
    out.append(f"  {'feature'.ljust(width)}  {'step':<{BAR + 5}}    r     m     a   class")
    for name, node in zip(names, answer["nodes"], strict=True):
        here = node["step"] == 0
        step = "▸ this one".ljust(BAR + 5) if here else f"{bar(node['cosine'])} {node['cosine']:.2f}"
        mark = " " if node["held"] else "╎"
        cosines = " ".join(f"{cosine_text(node[k]):>5}" for k in ("r", "m", "a"))
        words = words_text(node["words"], 5)
        out.append(f"{mark} {fit(name, width)}  {step} {cosines}   {node['class']}  {words}")
    out.append("  ╎ beyond a cut: the cosine of a step fell below r")
    return out


def flow_svg(answer: Answer) -> str:
    """The chain as a stand-alone SVG: one row a place of the stream, the step's cosine as a bar."""
    row, left, width = 34, 190, 900
    nodes = answer["nodes"]
    height = 70 + row * len(nodes)
    bars = answer["thresholds"]
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="monospace" '
        'font-size="13"><rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="16" y="24" font-weight="bold">{escape(safe_token_text(answer["address"]))}</text>',
        f'<text x="16" y="42" fill="#555">{escape(sentence(answer))} · high: r {bars["r"]:g}, m {bars["m"]:g}, '
        f"a {bars['a']:g}</text>",
        f'<line x1="{left + 200 * bars["r"]:.1f}" y1="54" x2="{left + 200 * bars["r"]:.1f}" y2="{height - 10}" '
        'stroke="#b33" stroke-dasharray="3 3"/>',
    ]
    for at, node in enumerate(nodes):
        y = 64 + row * at
        colour = "#222" if node["held"] else "#aaa"
        weight = "bold" if node["step"] == 0 else "normal"
        name = safe_token_text(f"{node['sae']} #{node['feature']}")
        out.append(f'<text x="16" y="{y + 14}" fill="{colour}" font-weight="{weight}">{escape(name)}</text>')
        if node["cosine"] is None:
            out.append(f'<text x="{left}" y="{y + 14}" fill="{colour}">this feature</text>')
        else:
            length = 200 * max(0.0, min(1.0, node["cosine"]))
            out.append(f'<rect x="{left}" y="{y + 4}" width="{length:.1f}" height="12" fill="{colour}"/>')
            out.append(f'<text x="{left + 206}" y="{y + 14}" fill="{colour}">{node["cosine"]:.2f}</text>')
        cosines = f"r {cosine_text(node['r'])}  m {cosine_text(node['m'])}  a {cosine_text(node['a'])}"
        text = f"{cosines}  {node['class']}  {words_text(node['words'], 4)}"
        out.append(f'<text x="{left + 250}" y="{y + 14}" fill="{colour}">{escape(fit(text, 60).rstrip())}</text>')
    out.append("</svg>")
    return "\n".join(out) + "\n"
