"""Whether a label file belongs to an SAE: by feature numbers, model and source, as far as the file says them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wbtui.catalog.neuronpedia import source_in
from wbtui.catalog.registry import canonical_model
from wbtui.errors import UsageError
from wbtui.labels.readers import Item


@dataclass(frozen=True)
class Target:
    """The SAE that labels are for."""

    address: str
    fingerprint: str
    """SHA-256 of its weights: labels follow the bytes, not the folder."""
    d_sae: int
    layer: int
    models: tuple[str, ...]
    """Names that its model goes by."""
    neuronpedia: str = ""
    """``MODEL/SOURCE`` where the SAE's own config names it."""
    trusted: str = ""
    """A model's name that the user says is this model."""


def target_of(plan: Any, trusted: str = "") -> Target:
    """The target of a :class:`wbtui.catalog.plan.TokensPlan`."""
    sae, model = plan.sae, plan.model
    parts = plan.tokens.identity["sae"]
    names = (model.name, Path(model.path).name, sae.model_name)
    return Target(
        address=f"{model.name}@{sae.name}",
        fingerprint=str(parts["fingerprint"]),
        d_sae=sae.d_sae,
        layer=sae.layer,
        models=tuple(dict.fromkeys(name for name in names if name)),
        neuronpedia=source_in(Path(sae.path)),
        trusted=trusted,
    )


def check(target: Target, item: Item) -> None:
    """Refuse an item of another SAE.

    Raises:
        UsageError: a number that the SAE has not, another model, layer or width; both sides are named.
    """
    again = "nothing was imported"
    if item.feature >= target.d_sae:
        theirs = " ".join(part for part in (item.model, item.source) if part)
        raise UsageError(
            f"{item.where}: feature {item.feature}" + (f" of {theirs}" if theirs else ""),
            f"0 to {target.d_sae - 1}, the features of {target.address}",
            f"the file belongs to another SAE: import it there; {again}",
        )
    if item.model and not _same_model(item.model, target):
        raise UsageError(
            f"{item.where}: labels of model {item.model}",
            f"{target.address}, whose model is {' or '.join(target.models)}",
            f"if it is the same model, add --model-id {item.model}; {again}",
        )
    if item.source:
        _check_source(target, item, again)


def _check_source(target: Target, item: Item, again: str) -> None:
    source = item.source.rsplit("/", 1)[-1]
    if target.neuronpedia and "-" in source:
        known = target.neuronpedia.rsplit("/", 1)[-1]
        if source == known:
            return
    layer = re.match(r"(?:layer_)?(\d+)-", source)
    if layer and int(layer.group(1)) != target.layer:
        raise UsageError(
            f"{item.where}: labels of {item.model or 'SAE'} {source}, layer {layer.group(1)}",
            f"layer {target.layer}, where {target.address} is",
            f"the file belongs to another SAE: import it there; {again}",
        )
    width = re.search(r"-(\d+)([km])$", source)
    if width:
        thousands = int(width.group(1)) * (1024 if width.group(2) == "m" else 1)
        if thousands not in (target.d_sae // 1000, target.d_sae // 1024):
            raise UsageError(
                f"{item.where}: labels of {item.model or 'SAE'} {source}",
                f"an SAE of {target.d_sae} features, {target.address}",
                f"the file belongs to another SAE: import it there; {again}",
            )


def _same_model(theirs: str, target: Target) -> bool:
    known = {_bare(name) for name in (*target.models, target.trusted, target.neuronpedia.split("/")[0]) if name}
    return _bare(theirs) in known


def _bare(name: str) -> str:
    """A model's name without owner, punctuation and the words that differ between sites."""
    text = name.rsplit("/", 1)[-1].casefold().removeprefix("meta-").replace("instruct", "it")
    return re.sub(r"[^a-z0-9]", "", canonical_model(text))
