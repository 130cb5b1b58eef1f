"""Find by direction: a query against every feature of one SAE or of all layers, exactly, in one read of the weights.

The query of words is the mean of its words, a word the mean of its single-token spellings, a difference the first mean
less the second. In front of decoders that is a mean of folded unembedding columns ``P diag(gain) W_U[:, t]``, less the
vocabulary's mean where the definition centres tokens; in front of encoders a mean of ``alpha (W_E[t] - c)`` (methods
1.2). Scores are of rows at length one (methods 3.6: their lengths are a convention of the SAE): on the writes side what
the feature adds to the logits of these words above the vocabulary's mean, per unit of its decoder; for vectors and
``like:`` the cosine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wbtui.analysis.scores import Scores, best
from wbtui.catalog.models import find_model
from wbtui.catalog.saes import SaeInfo
from wbtui.catalog.stream import at_position, identity, label, parse_position, read_position, writes_at
from wbtui.compute.ask import WORDS, Question, number
from wbtui.errors import UsageError, WeightsError
from wbtui.features.asking import Asked, NoToken, Spelled, near, parse, tokens_of
from wbtui.sources.vector import read_vector
from wbtui.sources.vocabulary import split

NAMED = 8
"""Features whose weights are not finite that an answer names; it counts all."""


def find(question: Question) -> dict[str, Any]:
    """Answer ``find``: args {query, all_layers, top, at}.

    Returns:
        dict: {query, side, kind, words, position, norm, saes: [{sae, …, mean, std, dimensions, usable,
        nonfinite, nonfinite_rows}], skipped: [{sae,
        why}], hits: [{address, sae, layer, site, feature, score, cosine, z, tail, rank, ranks, words, others}]}, hits
        best first. Parts that are told on the way are {sae: {…}, hits: […]} without ranks and words.
    """
    args = question.args
    asked = parse(str(args.get("query", "")))
    top = question.top()
    query, about, spelled = query_of(question, asked)
    chosen = question.dictionaries() if args.get("all_layers") else [question.anchor]
    answer: dict[str, Any] = {
        "query": asked.text, "side": asked.side, "kind": asked.kind, **about,
        "norm": number(float(query.norm())), "saes": [], "skipped": [], "hits": [],
    }  # fmt: skip
    whole = asked.kind == "tokens"
    hits: list[dict[str, Any]] = []
    for at, sae in enumerate(chosen):
        question.poll()
        source = question.source(sae)
        if asked.side == "reads" and source.reads_absent is not None:
            answer["skipped"].append({"sae": sae.name, "why": source.reads_absent})
            continue
        above = hits[-1]["score"] if len(hits) == top else -np.inf
        try:
            found = score_sae(question, sae, asked.side, query, whole=whole, top=top, above=above)
        except WeightsError as error:
            if len(chosen) == 1:
                raise
            answer["skipped"].append({"sae": sae.name, "why": error.found})
            continue
        answer["saes"].append(found[0])
        hits = sorted([*hits, *found[1]], key=lambda h: (-h["score"], h["layer"], h["feature"]))[:top]
        question.tell((at + 1) / (len(chosen) + 1), {"sae": found[0], "hits": found[1]})
    if not answer["saes"]:
        raise UsageError(answer["skipped"][0]["why"], "an SAE with this side", "ask with w:, or take another SAE")
    answer["hits"] = _with_lists(question, hits, asked, spelled)
    return answer


def score_sae(
    question: Question, sae: SaeInfo, side: str, query: Tensor, *, whole: bool, top: int, above: float = -np.inf
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One SAE's spread and its best features for a query.

    Args:
        query: ``[D]`` fp64, centred already in a LayerNorm model.
        whole: keep rows' mean over the width in their lengths (scores of logits are per unit of the decoder as it is).
        above: scores below it are no hits: other SAEs have enough that are higher.
    """
    centre = question.centre and not (whole and side == "writes")
    scores = question.scored(sae, side, query[None], centre=centre)
    found = strongest(scores, top, above)
    length = float(query.norm())
    bad = np.flatnonzero(~np.isfinite(scores.norms))
    about = question.place(sae) | {
        "usable": int(scores.usable.sum()),
        "nonfinite": len(bad),
        "nonfinite_rows": bad[:NAMED].tolist(),
        "mean": number(found.mean),
        "std": number(found.std),
        "dimensions": number(scores.dimensions()),
    }
    hits = [
        {
            "address": question.address(sae, int(i)), "sae": sae.name, "layer": sae.layer, "site": sae.site,
            "feature": int(i), "score": float(score), "cosine": number(score / length),
            "z": number(z), "tail": number(tail),
        }
        for i, score, z, tail in zip(found.ids, found.scores, found.z, found.tails, strict=True)
    ]  # fmt: skip
    return about, hits


@dataclass(frozen=True)
class Strongest:
    """The best features of one query: numbers, scores, z, tails; and the spread of all scores."""

    ids: np.ndarray
    scores: np.ndarray
    z: np.ndarray
    tails: np.ndarray
    mean: float
    std: float


def strongest(scores: Scores, top: int, above: float = -np.inf) -> Strongest:
    """At most ``top`` of the first query's scores, of at least ``above``, best first."""
    values = scores.scores[:, 0]
    usable = values if scores.usable.all() else values[scores.usable]
    mean, std = float(usable.mean()), float(usable.std())
    ids = best(values, top)
    ids = ids[values[ids] >= above]
    with np.errstate(invalid="ignore", divide="ignore"):
        z = (values[ids] - mean) / std
    return Strongest(ids, values[ids], z, scores.tail(values[ids]), mean, std)


def query_of(question: Question, asked: Asked) -> tuple[Tensor, dict[str, Any], list[Spelled]]:
    """The query's direction ``[D]`` fp64 in front of the rows of its side, and what it means in words."""
    if asked.kind == "tokens":
        spelled = spell(question, asked)
        query = token_query(question, asked.side, spelled)
        return query, {"words": [s.to_json() for s in spelled], "position": None}, spelled
    if asked.kind == "vector":
        vector, position = vector_of(question, asked.path, asked.tensor, asked.position or question.args.get("at"))
        return unit(question, vector), {"words": [], "position": label(position)}, []
    assert asked.address is not None
    address = asked.address
    if find_model(address.model).path != question.model.path:
        raise UsageError(
            f"like:{address}", f"a feature of {question.model.name}", "features of another model live elsewhere"
        )
    sae = question.named(address.sae or "")
    row = question.feature_row(sae, int(address.feature or 0), asked.side)
    if asked.side == "writes":
        lives: int | None = writes_at(sae, question.parallel)
    else:
        lives = read_position(sae.site, sae.layer, question.parallel)
    where = None if lives is None else label(lives)
    return unit(question, row), {"words": [], "position": where}, []


def spell(question: Question, asked: Asked) -> list[Spelled]:
    """The query's tokens.

    Raises:
        NoToken: a word that no token spells, with how it splits and what is there instead.
    """
    vocab = question.vocab
    try:
        return tokens_of(asked, vocab)
    except NoToken as error:
        wanted = error.wanted
        pieces = split(question.model.path, wanted.text if wanted.exact else " " + wanted.text)
        shown = " ".join(f'"{vocab.shown(i)}"' for i in pieces[:12]) + (" …" if len(pieces) > 12 else "")
        raise NoToken(wanted, shown, near(vocab, wanted)) from None


def token_query(question: Question, side: str, spelled: list[Spelled]) -> Tensor:
    """The mean of the query's words in front of a side's rows, ``[D]`` fp64; see the module."""
    table = question.weights.tables(lazy=True)[0 if side == "writes" else 1]
    total = torch.zeros(table.width, dtype=torch.float64, device=table.rows.device)
    weights = 0.0
    for sign in (1, -1):
        words = [s for s in spelled if s.wanted.sign == sign]
        for word in words:
            ids = torch.as_tensor(word.ids, device=table.ids.device)
            total += sign * table.rows[table.positions(ids)].double().mean(0) / len(words)
        weights += sign if words else 0
    if question.definition.center_tokens and weights:
        total -= weights * table.centre(question.stop)
    if side == "reads":
        total *= table.scale
    else:
        gain = question.weights.norm["gain"]
        if gain is not None:
            total *= gain.to(total.device).double()
    folded = side == "reads" or question.definition.unembed == "folded"
    if question.centre and folded:
        total = total - total.mean()
    if not bool(total.any()):
        raise UsageError("a query whose words cancel", "two different sets", "take other words away")
    return total


def vector_of(question: Question, path: str, tensor: str, position: str | None) -> tuple[Tensor, int]:
    """The user's vector ``[D]`` and where it lives.

    Raises:
        UsageError: no position said; a file that is not such a vector (:func:`read_vector`).
    """
    if not position:
        raise UsageError(f"{path}: no stream position", "where the vector lives", f"say so: dir:{path}@L3.resid_post")
    where = parse_position(position, question.model.n_layers)
    return read_vector(path, tensor, question.model.d_model), where


def population_at(question: Question, position: int) -> SaeInfo | None:
    """The SAE of the stream at a position: the anchor where it is there, else the one with the shortest name."""
    found = at_position([question.anchor, *question.dictionaries()], position)
    return next((s for s in found if identity(s) == identity(question.anchor)), found[0] if found else None)


def unit(question: Question, vector: Tensor) -> Tensor:
    """At length one, centred in a LayerNorm model (no reader sees the mean over the width)."""
    v = vector.double()
    if question.centre:
        v = v - v.mean()
    length = float(v.norm())
    if length <= 1e-6 * float(vector.double().norm()):
        raise UsageError(
            "a vector that is constant over the width",
            "a direction that the LayerNorms do not take away",
            "nothing in this model reads such a vector: take another",
        )
    return v / length


def _with_lists(
    question: Question, hits: list[dict[str, Any]], asked: Asked, spelled: list[Spelled]
) -> list[dict[str, Any]]:
    """Hits with the place of the query's words in their own lists, and their other words."""
    groups = [s.ids for s in spelled]
    plus = [g for g, s in enumerate(spelled) if s.wanted.sign > 0]
    words_of = question.vocab.word_ids
    mine = {int(words_of[i]) for s in spelled for i in s.ids}
    by_sae: dict[str, list[dict[str, Any]]] = {}
    for hit in hits:
        by_sae.setdefault(hit["sae"], []).append(hit)
    for name, some in by_sae.items():
        sae = question.named(name)
        for hit, own in zip(some, question.lists(sae, [h["feature"] for h in some], asked.side, groups), strict=True):
            ranks = own["ranks"]
            known = [ranks[g] for g in plus if ranks[g] is not None]
            hit["rank"] = max(known) if known and len(known) == len(plus) else None
            hit["ranks"] = [
                {"word": s.wanted.text, "sign": s.wanted.sign, "rank": r} for s, r in zip(spelled, ranks, strict=True)
            ]
            hit["words"] = own["words"][:WORDS]
            hit["others"] = [w for w in own["words"] if int(words_of[w["id"]]) not in mine][:WORDS]
            hit["z_max"] = own["z_max"]
    return hits
