"""What the numbers of heads, of what heads write, and of depth mean: columns of the products, then what is drawn."""

from __future__ import annotations

from wbtui.features.glossary import OURS, Entry
from wbtui.schema_attention import attention_columns, ov_columns

_DRAWN = {
    "over noise": (
        "a statistic over the 99th percentile of the same statistic of random directions in the same head, the larger "
        "over null kinds: 1 is the line of the noise",
        OURS,
    ),
    "some head": (
        "share of features whose largest ratio over heads is above the noise's own 99th percentile of that largest "
        "ratio: with many heads noise passes one of them often",
        OURS,
    ),
    "led by a head": (
        "`head:L4.H2` alone in a filter: of all heads of layer 4, H2 has the feature's largest ratio (peak over noise; "
        "each head by the larger of its query and key side; `.query` or `.key`: that side alone), and that ratio is "
        "above the noise's own 99th percentile of the largest over heads; ties go to the smaller head. Layers are not "
        "compared; capacity to attend, not attention that was seen",
        OURS,
    ),
    "partners": ("the features of largest score with this one, S_ij = s <q_i, k_j>, over all features, uncapped", OURS),
    "b_q": ("the key's prior s <b_q, k_j>: what it receives whatever the query is", OURS),
    "tokens, against": (
        "tokens of o = d V_eff O_eff through the final norm and the unembedding, z over the kept vocabulary; beyond "
        "noise as for what features write",
        OURS,
    ),
    "becomes": (
        "features of the SAE behind the heads by cosine of o with their decoder row",
        "arXiv 2502.03032 (cosine matching); OV as in arXiv 2406.11944",
    ),
    "readers": ("features of the SAE behind the heads by <o, e_j>, what their encoder reads of o", "arXiv 2406.11944"),
    "by distance": (
        "the score of one pair as the key stands 0, 1, 2, 4 … positions before the query (rotary); bars are shares of "
        "its largest, – is zero or less",
        OURS,
    ),
    "scores over distance": (
        "cosine of all pairs' scores of a head at offset 0 with those at an offset, from Gram matrices",
        "residual-thoughts.com, 2026 (RoPE stability)",
    ),
    "layer means": ("mean of a statistic over features and heads; interval of the mean over features", OURS),
    "CV over depth": (
        "standard deviation over mean of the layer means of a side; tested by exchanging the sides within layers",
        OURS,
    ),
    "outer − middle": (
        "mean over the first and last third of layers minus the middle third, layers resampled within thirds; a shape "
        "is claimed from 12 layers on: U above zero, inverted U below",
        OURS,
    ),
    "curvature": ("c of the least-squares fit a + b t + c t², t = layer / (layers - 1), from 12 layers on", OURS),
}


def heads_glossary() -> list[Entry]:
    """Every column of ``attention`` and ``ov``, then the quantities that pages draw of them."""
    columns = {**attention_columns(), **ov_columns()}
    out = []
    for name, column in columns.items():
        side, _, statistic = name.partition(".")
        if side == "key" and f"query.{statistic}" in columns:
            continue  # both sides' mean the same, the other way round
        shown = statistic if side == "query" and f"key.{statistic}" in columns else name
        sampled = "; a seeded sample of partners in large dictionaries" if column.sampled else ""
        out.append(Entry(shown, column.meaning + sampled, "", OURS))
    return out + [Entry(name, meaning, "", source) for name, (meaning, source) in _DRAWN.items()]
