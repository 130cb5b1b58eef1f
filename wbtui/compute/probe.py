"""A direction of the user's, through the code that features go through: its words, its heads, its neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np

from wbtui.analysis.attention_lone import lone_feature
from wbtui.analysis.features import instant_row
from wbtui.catalog.plan_attention import plan_attention
from wbtui.catalog.stream import label
from wbtui.compute.ask import WORDS, Question, number
from wbtui.compute.attention import LayerWork
from wbtui.compute.find import population_at, score_sae, unit, vector_of
from wbtui.definitions import AttentionDefinition
from wbtui.errors import UsageError, WbtuiError


def direction(question: Question) -> dict[str, Any]:
    """Answer ``direction``: args {path, tensor, at, top}.

    Returns:
        dict: {position, norm, sae: the SAE of the stream there (None: none), columns: a ``tokens`` row (writes: the
        vector as a decoder row; reads: as an encoder column), unmasked, heads: {layer, absent, heads: [{head, values,
        query, key}]}, neighbours: [hit…] by decoder cosine, readers: [hit…] by encoder cosine at the same place}.
    """
    args = question.args
    vector, position = vector_of(question, str(args.get("path", "")), str(args.get("tensor") or ""), args.get("at"))
    norm = question.weights.norm
    encoder = vector - vector.mean() if question.centre else vector
    writes, reads = question.weights.tables(lazy=True)
    columns = instant_row(
        vector.to(question.device), encoder.to(question.device), writes, reads, **norm, stop=question.stop
    )
    question.tell(0.4)
    sae = population_at(question, position)
    answer: dict[str, Any] = {
        "position": label(position), "norm": float(vector.norm()), "sae": None if sae is None else sae.name,
        "columns": {name: _plain(array[0]) for name, array in columns.items()},
        "unmasked": question.weights.unmasked,
        "heads": _heads(question, vector, position),
        "neighbours": [], "readers": [],
    }  # fmt: skip
    question.tell(0.8)
    if sae is not None:
        query, top = unit(question, vector), question.top(10)
        answer["population"] = question.place(sae)
        for name, side in (("neighbours", "writes"), ("readers", "reads")):
            about, hits = score_sae(question, sae, side, query, whole=False, top=top)
            own = question.lists(sae, [h["feature"] for h in hits], side)
            answer[name] = [h | {"words": o["words"][:WORDS]} for h, o in zip(hits, own, strict=True)]
            answer[f"{name}_of"] = about
    return answer


def _heads(question: Question, vector: Any, position: int) -> dict[str, Any]:
    """The direction in every head of the first layer that reads its place, among the features of the SAE there."""
    layer = -(-position // 2)
    sae = population_at(question, position)
    if layer >= question.model.n_layers:
        return {"layer": None, "absent": "no head reads the last layer's stream", "heads": []}
    if sae is None:
        return {"layer": layer, "absent": f"no SAE of the stream at {label(position)} to be its partners", "heads": []}
    try:
        plan = plan_attention(question.model, sae, AttentionDefinition(), question.cache, layer)
        work = LayerWork(plan.attention, str(question.device))
        found = lone_feature(
            [work.head(h) for h in range(work.source.facts.n_heads)], vector, work.decoder_rows, work.definition,
            question.device, fetch=lambda ids: question.rows(sae, ids.tolist()), stop=question.stop,
        )  # fmt: skip
    except UsageError as error:
        return {"layer": layer, "absent": error.line(), "heads": []}
    except WbtuiError as error:
        if error.exit_code == 130:
            raise
        return {"layer": layer, "absent": error.line(), "heads": []}
    heads = [
        {
            "head": h,
            "values": {name: number(value) for name, value in lone.values.items()},
            **{
                side: [{"feature": f, "score": number(s), "cosine": number(c)} for f, s, _, c in partners]
                for side, partners in (("query", lone.query_partners), ("key", lone.key_partners))
            },
        }
        for h, lone in enumerate(found or [])
    ]
    return {"layer": layer, "absent": "" if found else "its direction is zero there", "heads": heads}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_plain(v) for v in value]
    plain = value.item()
    return number(plain) if isinstance(plain, float) else plain
