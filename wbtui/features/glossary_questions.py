"""What find, edges and flow show, in words, with their sources: beside the metrics of the glossary."""

from __future__ import annotations

from wbtui.features.answers import MEANINGS
from wbtui.features.glossary import Entry

LATENT = "virtual weights, Dunefsky et al., arXiv 2406.11944"
FLOW = "after Analyze Feature Flow, arXiv 2502.03032"
OURS = "ours"
_EDGES = ("weight", "along", "share", "via")
_FLOW = {
    "r": "best decoder cosine with a feature of the stream before, s(R); high from 0.5 on, movable",
    "m": "best decoder cosine with a feature of the layer's MLP output, s(M); high from 0.25 on; – where it has no SAE",
    "a": "the same with the attention's output, s(A)",
    "flow class": "carried: high r, low m and a · processed: high r and a module · newborn: low r, high module · "
    "unexplained: all low; two are named where a module has no SAE. What is alike, not what causes it",
    "born, gone": "the span of layers over which each step of the chain keeps its cosine at r or above",
}


def questions_glossary() -> list[Entry]:
    """Every column of find, edges and flow once."""
    out = [
        Entry(name, words, "edges" if name in _EDGES else "find", LATENT if name == "weight" else OURS)
        for name, words in MEANINGS.items()
        if name not in ("address", "layer", "list")
    ]
    return out + [Entry(name, words, "flow", FLOW) for name, words in _FLOW.items()]
