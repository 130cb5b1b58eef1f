"""Edges of one feature: what could feed it and what could read it, by weights alone (methods 2.1, 2.7; Dunefsky et al.,
arXiv 2406.11944). Input-independent: what could flow, not what does.

* up: ``d_j e_i`` over the features ``j`` whose output is in the stream that the encoder of ``i`` reads;
* down: ``d_i e_j`` over the features whose encoder reads the stream that ``i`` writes into;
* down through a head that reads the stream first: ``o_i e_j`` with ``o_i = d_i V_eff O_eff``, for an attention of one.

Rows are as they stand in the files (no unit length), norms in between are left out: a positive factor per token. Where
stands in the stream is told by position, not by hook names (:mod:`wbtui.catalog.stream`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from wbtui.analysis.output_value import OutputValue
from wbtui.analysis.scores import Law, Scores, best
from wbtui.catalog.saes import SaeInfo
from wbtui.catalog.stream import feeds, identity, read_position, write_position, writes_at
from wbtui.compute.ask import WORDS, Question, number
from wbtui.errors import UsageError, WbtuiError
from wbtui.sources.attention import AttentionSource


def edges(question: Question) -> dict[str, Any]:
    """Answer ``edges``: args {feature, top, layer: whose heads (None: the first that read)}.

    Returns:
        dict: {address, words, up, down, heads}, each list {edges: [{address, sae, layer, site, feature, weight, cosine,
        share, tail, via, words}], total: sum of absolute weights, count, saes: […], absent: why there is none, or ""};
        shares are of their own list's total, heads' of all the heads' together.
    """
    sae, feature, top = question.anchor, int(question.args.get("feature", -1)), question.top()
    d = question.feature_row(sae, feature).double()
    others = [s for s in question.dictionaries() if identity(s) != identity(sae)]
    above = [s for s in others if feeds(s, sae, question.parallel)]
    below = [s for s in others if feeds(sae, s, question.parallel) and question.source(s).reads_absent is None]
    answer: dict[str, Any] = {"address": question.address(sae, feature), **question.place(sae), "feature": feature}
    writers, head_absent, layer = _heads(question, d)
    behind = [s for s in below if len(writers) and _reads_behind(question, s, layer)]
    steps, done = len(above) + len(below) + 1, 0

    def step() -> None:
        nonlocal done
        done += 1
        question.tell(done / steps)

    up, down, heads = _Kept(top), _Kept(top), _Kept(top)
    e = question.source(sae).encoder_rows(feature, feature + 1)
    up_absent = question.source(sae).reads_absent or ("" if above else "no SAE of an earlier place in the stream")
    if e is not None:
        for other in above:
            up.add(other, _scored(question, other, "writes", e.double()), [""])
            step()
    names = [f"L{layer}.H{h}" for h in range(len(writers))]
    queries = torch.cat([d[None], *([writers.double()] if len(writers) else [])])
    if question.centre:
        queries = queries - queries.mean(1, keepdim=True)
    for other in below:
        through = other in behind
        scores = _scored(question, other, "reads", queries if through else queries[:1])
        down.add(other, scores, [""])
        if through:
            heads.add(other, scores, names, first=1)
        step()
    down_absent = "" if below else "no SAE whose encoder reads a later place of the stream"
    if len(writers) and not behind:
        head_absent = "no SAE whose encoder reads the stream behind these heads"
    answer["up"] = up.finish(question, up_absent)
    answer["down"] = down.finish(question, down_absent)
    answer["heads"] = heads.finish(question, head_absent) | {"layer": layer if len(writers) else None}
    answer["words"] = question.lists(sae, [feature])[0]["words"][:WORDS]
    return answer


def _scored(question: Question, sae: SaeInfo, side: str, queries: Tensor) -> Scores:
    queries = queries if queries.ndim == 2 else queries[None]
    return question.scored(sae, side, queries, centre=question.centre and side == "reads")


def _heads(question: Question, d: Tensor) -> tuple[Tensor, str, int]:
    """What each head of the reading layer writes when it attends to the feature ``[H, D]``; why none; the layer."""
    sae, layer = question.anchor, question.args.get("layer")
    first = -(-writes_at(sae, question.parallel) // 2)
    none = torch.zeros(0, len(d))
    if layer is None:
        layer = first
    elif isinstance(layer, bool) or not isinstance(layer, int) or not first <= layer < question.model.n_layers:
        raise UsageError(
            f"heads of layer {layer!r}",
            f"{first} to {question.model.n_layers - 1}, which read the stream",
            "leave --layer out for the first of them",
        )
    if layer >= question.model.n_layers:
        return none, "no head reads the last layer's stream", layer
    try:
        source = AttentionSource(question.weights.checkpoint, layer)
    except WbtuiError as error:
        return none, error.line(), layer
    found = [
        OutputValue(source.value(h).matrix.double(), source.out(h).double(), source.centre)
        for h in range(source.facts.n_heads)
    ]
    return torch.cat([(d[None] @ head.value) @ head.out for head in found]), "", layer


def _reads_behind(question: Question, sae: SaeInfo, layer: int) -> bool:
    """Whether an encoder reads the stream that the heads of a layer have written into."""
    reads = read_position(sae.site, sae.layer, question.parallel)
    return reads is not None and reads >= write_position("attn_out", layer, question.parallel)


class _Kept:
    """The strongest edges of a list, and the sum of all."""

    def __init__(self, top: int) -> None:
        self.top = top
        self.total = 0.0
        self.count = 0
        self.saes: list[SaeInfo] = []
        self.found: list[tuple[float, SaeInfo, int, str, float, Law]] = []

    def add(self, sae: SaeInfo, scores: Scores, names: list[str], first: int = 0) -> None:
        """All edges with one SAE, a column of scores a name."""
        self.saes.append(sae)
        usable = int(scores.usable.sum())
        here = range(first, first + len(names))
        size = np.abs(scores.dots[:, first : first + len(names)].T)  # [K, F]
        if usable < size.shape[1]:
            size[:, ~scores.usable] = 0.0
        self.total += float(size.sum())
        self.count += usable * len(names)
        flat = size.ravel()
        if len(self.found) == self.top:
            among = np.flatnonzero(flat >= abs(self.found[-1][0]))
        else:
            among = np.flatnonzero(np.tile(scores.usable, len(names)))
        laws = {k: scores.law(k) for k in here}
        for place in among[best(flat[among], self.top)]:
            k, i = divmod(int(place), size.shape[1])
            weight = float(scores.dots[i, k + first])
            if scores.usable[i]:
                along = weight / float(scores.norms[i])
                self.found.append((weight, sae, i, names[k], along, laws[k + first]))
        self.found.sort(key=lambda edge: (-abs(edge[0]), edge[1].layer, edge[2]))
        del self.found[self.top :]

    def tails(self) -> list[float]:
        """Of the edges in the list, a query's together."""
        out = np.empty(len(self.found))
        for law in {id(edge[5]): edge[5] for edge in self.found}.values():
            mine = [n for n, edge in enumerate(self.found) if edge[5] is law]
            out[mine] = law.two_sided(np.array([self.found[n][4] for n in mine]))
        return [float(tail) for tail in out]

    def finish(self, question: Question, absent: str) -> dict[str, Any]:
        """The list as JSON, with the words of every feature in it."""
        words: dict[tuple[tuple[str, str], int], list[dict[str, Any]]] = {}
        for sae in self.saes:
            ids = sorted({e[2] for e in self.found if identity(e[1]) == identity(sae)})
            for i, own in zip(ids, question.lists(sae, ids) if ids else [], strict=True):
                words[identity(sae), i] = own["words"][:WORDS]
        rows = [
            {
                "address": question.address(sae, i), "sae": sae.name, "layer": sae.layer, "site": sae.site,
                "feature": i, "weight": weight, "along": number(along), "share": number(abs(weight) / self.total),
                "tail": number(tail), "via": via, "words": words[identity(sae), i],
            }
            for (weight, sae, i, via, along, _), tail in zip(self.found, self.tails(), strict=True)
            if self.total > 0
        ]  # fmt: skip
        return {
            "edges": rows, "total": self.total, "count": self.count, "saes": [question.place(s) for s in self.saes],
            "absent": absent,
        }  # fmt: skip
