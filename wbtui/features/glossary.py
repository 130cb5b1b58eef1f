"""What every metric means, in words, with its source: the text of ``D``, of help and of export metadata."""

from __future__ import annotations

from dataclasses import dataclass

from wbtui.definitions import RECONSTRUCTION
from wbtui.errors import UsageError
from wbtui.features import neighbours
from wbtui.features.head_shelf import parts_of
from wbtui.features.names import STORED, Name, resolve
from wbtui.schema import tokens_columns
from wbtui.schema_attention import attention_columns

M = "methods 1.2"
OURS = "reconstruction of arXiv 2601.22447"
LITERATURE = {
    "methods 1.2": OURS,
    "methods 1.3": OURS,
    "methods 1.3; speed d.1": OURS,
    "methods 2.2": "after Analyze Feature Flow, arXiv 2502.03032",
    "methods 2.4": "after Query Lens, arXiv 2606.07617",
    "methods 2.5": "after Bloom & Lin 2024, logit-lens statistics",
    "methods 2.9": "after arXiv 2605.18629",
    "methods 3.2": "attention with biases, expanded",
}
"""Where a formula comes from, for readers; the code's docstrings name the section of the methods notes."""

DERIVED: dict[str, tuple[str, str]] = {
    "id": ("number of the feature: row of W_dec, column of W_enc", "SAE"),
    "n_words": (
        "words beyond noise: the largest k whose k-th best distinct word stands above random directions' envelope",
        M,
    ),
    "n_eff": ("effective number of tokens, exp(h_kappa)", M),
    "evidence": (
        "largest of z_max, z_10, delta_h, cos_tok, lev in null units, (m - null median) / (null p99 - null median), "
        "over the null's own 99th percentile of that maximum; 1 = as strong as the strongest 1 % of noise; the "
        "smaller over null kinds",
        M,
    ),
    "first_view": ("z_10 in null units (the smaller over null kinds) times word_share: the order of a first visit", M),
    "class": (
        "none: nothing beyond noise · single: one word · coherent (set): several that belong together · "
        "diffuse (mix): several that do not look alike",
        M,
    ),
    "semantic": ("class single or coherent: the default reading of 'promotes particular tokens'", M),
    "coherent": ("class coherent: several words beyond noise whose top ten look alike by cos_tok or lev", M),
    "strict": ("class coherent alone, the strict reading", M),
    "single": ("class single: exactly one word beyond noise", M),
    "diffuse": ("class diffuse: several words beyond noise that do not look alike; they predict as well as others", M),
    "none": ("class none: no word beyond noise; not the same as no effect", M),
    "promotes": ("any class but none", M),
    "unclear": (
        "no clear weight-based signal: z_max, z_10, delta_h, cos_tok, lev all inside the null's 99th percentile",
        M,
    ),
    "same": ("writes what it reads: both sides have the same top token (identity, not prediction)", M),
    "computed": ("the row is stored", "store"),
    "provisional": ("computed alone for the screen, replaced by its shard", "store"),
    "nonfinite": ("its decoder row or encoder column is not finite", "flags"),
    "zero": ("its decoder row or encoder column is zero", "flags"),
    "no_reads": ("its encoder does not read the residual stream", "flags"),
    "density": (
        "data, imported: share of the tokens of somebody's text on which the feature fired; later imports replace it",
        "imported files",
    ),
    "dead": ("data, imported: fired on no token of that text; on another text it may fire", "imported files"),
    "labelled": ("data, imported: somebody gave the feature a label (`label:word` filters by it)", "imported files"),
    "label": ("data, imported: its first label; label:word finds text in any of them", "imported files"),
    "marked": ("you marked it (m)", "your notes"),
    "tagged": ("it has a tag of yours (t)", "your notes"),
    "noted": ("it has a note of yours (a)", "your notes"),
    "tags": ("your tags; tag:todo finds one", "your notes"),
    "note": ("your note; note:word finds text in it", "your notes"),
    "percentile": ("share (0…100) of the SAE's stored rows that lie strictly below", M),
    "null": ("tail among random directions, (1 + b) / (N + 1) with b of N at or above; the larger over null kinds", M),
}
_SIDES = {
    "writes": "writes: decoder row through the final norm and unembedding",
    "against": "against: the tokens that the same row pushes down (-z)",
    "reads": "reads: token embeddings against the encoder column",
    "either": "on writes or reads",
    "both": "on writes and reads",
}


@dataclass(frozen=True)
class Entry:
    """One metric explained."""

    name: str
    meaning: str
    side: str
    source: str
    """The literature that the formula comes from, or that it is ours."""

    def line(self) -> str:
        """Name, meaning and source in one line."""
        return f"{self.name}: {self.meaning}" + (f" ({self.side})" if self.side else "") + f" [{self.source}]"


def explain(name: str) -> Entry:
    """What a name means.

    Raises:
        UsageError: unknown name.
    """
    found: Name = resolve(name)
    if found.kind == "rank":
        inner = explain(found.side)
        words, source = DERIVED[found.base]
        return Entry(
            found.text, f"{words}; of {inner.name}: {inner.meaning}", inner.side, LITERATURE.get(source, source)
        )
    if found.kind == "head":
        return _head(found.text)
    if found.kind == "near":
        return Entry(found.text, neighbours.meaning(found.text), "", LITERATURE["methods 2.2"])
    if found.kind in ("stored", "list"):
        column = STORED[found.text]
        return Entry(
            found.text, column.meaning, _SIDES.get(found.side, ""), LITERATURE.get(column.source, column.source)
        )
    try:
        words, source = DERIVED[found.base]
    except KeyError:
        raise UsageError(f"no words for {name!r}", "a metric of the glossary") from None
    return Entry(found.text, words, _SIDES.get(found.side, ""), LITERATURE.get(source, source))


def _head(name: str) -> Entry:
    """A head's metric: a statistic over its noise in the same head."""
    layer, head, side, statistic = parts_of(name)
    column = attention_columns()[f"{side or 'query'}.{statistic}"]
    sides = {
        None: "the larger of both sides",
        "query": "query: the feature attends to others",
        "key": "key: others attend to the feature",
    }
    words = (
        f"{column.meaning} in head {head} of layer {layer}, over the 99th percentile of the same of random directions "
        "in the same head (the larger over null kinds): 1 is the line of the noise. Alone in a filter: features led by "
        "the head, those whose largest such ratio over all heads of the layer is here and beyond the noise's own 99th "
        "percentile of that largest"
    )
    return Entry(name, words, sides[side], LITERATURE.get(column.source, column.source))


def glossary() -> list[Entry]:
    """Every metric once (sides once, on writes; stored ones first), for help."""
    out = [
        explain(name)
        for name in tokens_columns()
        if not name.startswith(("reads.", "against.")) or name == "reads.top_cos"
    ]
    out += [explain(name if name not in ("percentile", "null") else f"{name}:z_max") for name in DERIVED]
    out += [explain(name) for name in neighbours.near_names()]
    return out


NOTE = RECONSTRUCTION
"""Stands on every panel that shows these numbers."""
