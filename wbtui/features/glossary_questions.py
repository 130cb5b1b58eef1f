"""What find, edges, flow, match and the set page show, in words: beside the metrics of the glossary."""

from __future__ import annotations

from wbtui.features.answers import MEANINGS
from wbtui.features.glossary import Entry

LATENT = "virtual weights, Dunefsky et al., arXiv 2406.11944"
FLOW = "after Analyze Feature Flow, arXiv 2502.03032"
NEAREST = "mutual nearest neighbours by decoder cosine; lists and bars are ours"
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
_MATCH = {
    "mutual": "share of features that are the nearest, by decoder cosine, of their own nearest; two random ones "
    "reach about half by it, so read it beside the shares above 0.7 and 0.9",
    "above 0.7, 0.9": "share of features whose nearest in the other SAE has at least this decoder cosine, "
    "beside the same share of random directions and of a control dictionary",
    "matched": "features with a mutual nearest at or above the bar (0.7, movable)",
    "lost, new": "features of A, of B, that nothing in the other SAE comes near: the largest cosine is below the bar",
    "split": "a feature of A that is the nearest of two or more of B's, each at or above the bar",
    "kept class": "of matched pairs, the share with one class of writes on both sides; beside it what dealing out the "
    "classes anew among the pairs gives",
    "assignment": "the one-to-one pairing of largest total cosine (linear sum assignment), on request, up to 16,384 a "
    "side",
}
_SET = {
    "effective rank": "of marked features: exp of the entropy of the singular values of their unit decoder rows, each "
    "over their sum; n for n orthogonal rows, 1 for copies of one; beside it the same of as many random directions, "
    "over several SAEs with each one's covariance",
    "shared words": "words beyond noise in two or more of the features, beside as many features of each SAE at random",
    "shared heads": "features that a head of the layer that reads them first sees above noise, the share of all "
    "features of their SAEs that it sees, and the chance of as many at random (hypergeometric, convolved over SAEs)",
}


def questions_glossary() -> list[Entry]:
    """Every column of find, edges and flow, every figure of match and set, once."""
    out = [
        Entry(name, words, "edges" if name in _EDGES else "find", LATENT if name == "weight" else OURS)
        for name, words in MEANINGS.items()
        if name not in ("address", "layer", "list")
    ]
    out += [Entry(name, words, "flow", FLOW) for name, words in _FLOW.items()]
    out += [Entry(name, words, "match", NEAREST) for name, words in _MATCH.items()]
    return out + [Entry(name, words, "set", OURS) for name, words in _SET.items()]
