"""The chain of one feature through a model's dictionaries; the rules are in :mod:`wbtui.analysis.flow`."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from wbtui.analysis.flow import FlowThresholds, best_of, flow_class, span
from wbtui.analysis.scores import best
from wbtui.catalog.saes import SaeInfo
from wbtui.catalog.stream import MODULES, identity, in_order, writes_at
from wbtui.compute.ask import WORDS, Question, number


def flow(question: Question) -> dict[str, Any]:
    """Answer ``flow``: args {feature, thresholds: {r, m, a}}.

    The chain follows the best decoder cosine from each place of the stream to the next one that has a dictionary of the
    anchor's site, backward and forward, each step from the match before. At each place of it the same feature is looked
    for in the MLP's and the attention's dictionaries of that layer.

    Returns:
        dict: {address, nodes: [{address, sae, layer, position, feature, step, cosine: with the node before in the
        chain (None at the feature itself), chance, r: best cosine in the stream before, m, a: {address, cosine, chance}
        or None, class, words}] in the order of the stream, born, gone: layers, ends: {back, forward}: whether the chain
        ends at a cut or at the last dictionary, thresholds, class}.
    """
    sae, feature = question.anchor, int(question.args.get("feature", -1))
    bars = FlowThresholds(**{k: v for k, v in (question.args.get("thresholds") or {}).items() if v is not None})
    row = question.feature_row(sae, feature)
    stream = [s for s in question.dictionaries() if s.site == sae.site]
    stream = in_order(stream, question.parallel)
    here = next(i for i, s in enumerate(stream) if identity(s) == identity(sae))
    modules = [s for s in question.dictionaries() if s.site in MODULES]
    steps, done = max(1, len(stream) + len(modules)), 0

    def step() -> None:
        nonlocal done
        done += 1
        question.tell(min(done / steps, 1.0))

    nodes: list[dict[str, Any]] = [_node(question, sae, feature, 0, None)]
    for sign in (-1, 1):
        at, direction = here + sign, row
        while 0 <= at < len(stream):
            match = best_match(question, stream[at], direction)
            step()
            if match is None:
                break
            nodes.append(_node(question, stream[at], match["feature"], at - here, match))
            direction = question.feature_row(stream[at], match["feature"])
            at += sign
    nodes.sort(key=lambda n: n["step"])
    for at, node in enumerate(nodes):
        mine = question.named(node["sae"])
        direction = question.feature_row(mine, node["feature"])
        before = nodes[at - 1] if at else None
        # Backward the step to the node before is that node's own match; forward the best before need not be the node
        # that led here, so it is looked up.
        if before is None:
            node["r"] = None
        elif node["step"] <= 0:
            node["r"] = {k: before[k] for k in ("address", "cosine", "chance")}
        else:
            node["r"] = best_match(question, question.named(before["sae"]), direction)
        for name in ("M", "A"):
            inside = [s for s in modules if MODULES[s.site] == name and _inside(question, s, mine, stream)]
            found = [m for s in inside if (m := best_match(question, s, direction)) is not None]
            node[name.lower()] = max(found, key=lambda m: m["cosine"]) if found else None
        node["class"] = flow_class(_cosine(node["r"]), _cosine(node["m"]), _cosine(node["a"]), bars)
    centre = next(i for i, n in enumerate(nodes) if n["step"] == 0)
    back = span([n["cosine"] for n in nodes[:centre][::-1]], bars.r)
    forth = span([n["cosine"] for n in nodes[centre + 1 :]], bars.r)
    for at, node in enumerate(nodes):
        node["held"] = centre - back <= at <= centre + forth
    return {
        "address": question.address(sae, feature), **question.place(sae), "feature": feature,
        "nodes": nodes, "class": nodes[centre]["class"],
        "born": nodes[centre - back]["layer"], "gone": nodes[centre + forth]["layer"],
        "ends": {
            "back": "cut" if back < centre else "first dictionary",
            "forward": "cut" if forth < len(nodes) - 1 - centre else "last dictionary",
        },
        "modules": sorted({MODULES[s.site] for s in modules}), "thresholds": {"r": bars.r, "m": bars.m, "a": bars.a},
    }  # fmt: skip


def best_match(question: Question, sae: SaeInfo, direction: Tensor) -> dict[str, Any] | None:
    """The feature of an SAE whose decoder is nearest to a direction, its cosine, and how likely the best of as many
    random directions of that SAE's covariance is to come as near. None where no row is usable."""
    question.poll()
    query = direction.double()
    if question.centre:
        query = query - query.mean()
    query = query / query.norm()
    scores = question.scored(sae, "writes", query[None], centre=question.centre)
    values = scores.scores[:, 0]
    found = best(values, 1)
    if not len(found):
        return None
    i = int(found[0])
    tail = float(scores.tail(np.array([values[i]]))[0])
    return {
        "address": question.address(sae, i), "sae": sae.name, "feature": i, "cosine": float(values[i]),
        "chance": number(best_of(int(scores.usable.sum()), tail)),
    }  # fmt: skip


def _node(question: Question, sae: SaeInfo, feature: int, step: int, match: dict[str, Any] | None) -> dict[str, Any]:
    own = question.lists(sae, [feature])[0]
    return {
        "address": question.address(sae, feature), **question.place(sae), "feature": feature, "step": step,
        "cosine": None if match is None else match["cosine"], "chance": None if match is None else match["chance"],
        "words": own["words"][:WORDS],
    }  # fmt: skip


def _cosine(match: dict[str, Any] | None) -> float | None:
    return None if match is None else match["cosine"]


def _inside(question: Question, module: SaeInfo, sae: SaeInfo, stream: list[SaeInfo]) -> bool:
    """Whether a sublayer's output joins the stream after the dictionary before ``sae`` and not after ``sae`` itself."""
    joins = writes_at(module, question.parallel)
    here = writes_at(sae, question.parallel)
    at = next(i for i, s in enumerate(stream) if identity(s) == identity(sae))
    before = writes_at(stream[at - 1], question.parallel) if at else -1
    return before < joins <= here
