"""From a model, an SAE and a definition to the products of E2 and OV, with their keys. Standard library only.

A layer's products take from the config what no tensor says (score scale, softcap, rotary embedding, head counts): those
facts are part of the key, the rotary ones only where the definition's offset uses them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wbtui.catalog.architectures import Architecture, architecture_of
from wbtui.catalog.attention import AttentionFacts, active_layout, attention_facts
from wbtui.catalog.identity import fingerprint, model_fingerprint, sae_identity
from wbtui.catalog.models import ModelInfo, model_config
from wbtui.catalog.saes import SaeInfo
from wbtui.catalog.tensors import resolve, tensor_files
from wbtui.definitions import (
    CHECK_NULLS,
    DICTIONARY_NULLS,
    METHOD_VERSIONS,
    THRESHOLD_NULLS,
    AttentionDefinition,
    NullDefinition,
    attention_from_json,
    to_json,
)
from wbtui.errors import UsageError
from wbtui.store.keys import ProductSpec, slug


@dataclass(frozen=True)
class AttentionPlan:
    """The products of E2 and OV for one (model, SAE, definition, layer). Rows of each product are the layer's heads."""

    model: ModelInfo
    sae: SaeInfo
    definition: AttentionDefinition
    layer: int
    """The layer whose heads read."""
    direct: bool
    """False for a later layer than the first reader: the direct path only, what layers between rewrite is ignored."""
    normalised: bool
    """q/k norms: scores are "per-feature normalised", the length of a feature drops out of them (methods 3.4)."""
    facts: AttentionFacts
    attention: ProductSpec
    nulls: tuple[ProductSpec, ...]
    """The nulls that set thresholds: isotropic, decoder covariance."""
    checks: tuple[ProductSpec, ...]
    """Fresh nulls, judged by the thresholds."""
    ov: ProductSpec
    ov_nulls: tuple[ProductSpec, ...]

    def all(self, checks: bool = True) -> list[ProductSpec]:
        """Every product, nulls before what they judge; none needs another, so any order will do."""
        return [*self.nulls, self.attention, *self.ov_nulls, self.ov, *(self.checks if checks else ())]


def readers(model: ModelInfo, sae: SaeInfo) -> tuple[int, ...]:
    """The layers whose heads can read a hook's stream, the first reader first; empty where none behind it has heads.

    Layers that mix tokens by linear attention have none and are left out.
    """
    first = model.n_layers if sae.reader_layer is None else sae.reader_layer
    return tuple(layer for layer in range(first, model.n_layers) if layer not in model.headless)


def no_reader(model: ModelInfo, sae: SaeInfo) -> str | None:
    """Why no head reads a hook, in words; None where some do (methods 3.6)."""
    if readers(model, sae):
        return None
    if sae.reader_layer is not None and sae.reader_layer < model.n_layers:
        return (
            f"no head reads {sae.site} of layer {sae.layer}: the layers behind it mix tokens by linear attention and "
            "have no heads"
        )
    return f"no head reads {sae.site} of layer {sae.layer}: it is the last layer's, and only the unembedding follows"


def target_of(model: ModelInfo, saes: Sequence[SaeInfo], sae: SaeInfo, layer: int) -> SaeInfo | None:
    """The SAE whose features say what heads of a layer write: the nearest on the stream behind them.

    Of several at one place: the same site, the layer's own short name (``L3``), the same width, the shortest name.
    None where no SAE stands behind the layer.
    """

    def place(other: SaeInfo) -> int:
        return model.n_layers if other.reader_layer is None else other.reader_layer

    behind = [other for other in saes if other.site.startswith("resid_") and place(other) > layer]

    def rank(other: SaeInfo) -> tuple[int, bool, bool, bool, int, str]:
        own_name, own_width = other.name == f"L{other.layer}", other.d_sae == sae.d_sae
        return place(other), other.site != sae.site, not own_name, not own_width, len(other.name), other.name

    return min(behind, key=rank, default=None)


def plan_attention(
    model: ModelInfo, sae: SaeInfo, definition: AttentionDefinition, cache: Path, layer: int | None = None
) -> AttentionPlan:
    """Fingerprint what one layer's heads use and name the products.

    Args:
        model: from :func:`wbtui.catalog.models.find_model`.
        sae: from :func:`wbtui.catalog.saes.find_sae`.
        definition: the numbers asked for.
        cache: the cache folder; only its fingerprint memo is written, and only if it can be.
        layer: the reading layer; by default the first that reads the hook's stream.

    Raises:
        UsageError: no head reads the hook, a layer before its first reader, an offset that the layer has not.
        WeightsError: files missing, damaged or not fitting.
    """
    body = to_json(definition)
    attention_from_json(body)
    reason = no_reader(model, sae)
    if reason is not None:
        raise UsageError(reason, "an SAE on a stream that a later layer's heads read")
    layers = readers(model, sae)
    layer = layers[0] if layer is None else layer
    if layer in model.headless:
        raise UsageError(
            f"layer {layer} has no heads: it mixes tokens by linear attention",
            "one of the layers with heads behind the hook: " + ", ".join(map(str, layers)),
        )
    if layer not in layers:
        raise UsageError(
            f"layer {layer} for an SAE at {sae.hook_name}",
            f"a layer from {layers[0]} to {layers[-1]}: earlier heads do not see what it writes",
        )
    memo = cache / "fingerprints"
    folder = Path(model.path)
    where = str(folder)
    config = model_config(folder)
    arch = architecture_of(config, where)
    facts = attention_facts(config, arch.attention, model.n_heads, model.d_head, layer, str(folder / "config.json"))
    _check_offset(definition, facts, layer)
    names = tensor_files(folder)
    sae_parts = sae_identity(names, arch, sae, where, memo)
    del body["name"]
    uses_rope = definition.rope != "offset" or definition.offset > 0
    arch = dataclasses.replace(arch, attention=active_layout(config, arch.attention))
    taken = facts.to_json() | {"window": None} | ({} if uses_rope else {"rope": None})
    common: dict[str, Any] = {"model_type": model.model_type, "layer": layer, "centre": arch.norm == "layer"}
    prints = {part: _layer_fingerprint(names, arch, layer, part, where, memo) for part in ("qk", "ov")}
    identities: dict[str, dict[str, Any]] = {
        "attention": {**common, "facts": taken, "model": prints["qk"], "definition": body},
        "ov": {**common, "heads": [facts.n_heads, facts.n_kv_heads, facts.d_head], "model": prints["ov"]},
    }
    slugs = {
        "model_slug": slug(model.name, model_fingerprint(names, arch, model.tied, where, memo)),
        "sae_slug": slug(sae.name, sae_parts["fingerprint"]),
    }

    def spec(analysis: str, null: NullDefinition | None = None) -> ProductSpec:
        identity = {
            "analysis": analysis,
            "method_version": METHOD_VERSIONS[analysis],
            "sae": sae_parts,
            **identities[analysis.removesuffix("_null")],
        }
        own = True
        if null is not None:
            identity["null"] = to_json(null)
            # a head's OV acts on random directions alike for every SAE; scores need the SAE's features as partners
            own = analysis == "attention_null" or null.kind in DICTIONARY_NULLS
            identity["sae"] = sae_parts if own else None
        return ProductSpec(
            analysis,
            identity,
            rows=facts.n_heads,
            shard_rows=1,
            model={"name": model.name, "path": model.path},
            sae=dataclasses.asdict(sae) if own else None,
            model_slug=slugs["model_slug"],
            sae_slug=slugs["sae_slug"] if own else "",
        )

    return AttentionPlan(
        model=model,
        sae=sae,
        definition=definition,
        layer=layer,
        direct=layer == sae.reader_layer,
        normalised=facts.qk_norm != "none",
        facts=facts,
        attention=spec("attention"),
        nulls=tuple(spec("attention_null", kind) for kind in THRESHOLD_NULLS),
        checks=tuple(spec("attention_null", kind) for kind in CHECK_NULLS if kind.kind != "sign_flip"),
        ov=spec("ov"),
        ov_nulls=tuple(spec("ov_null", kind) for kind in THRESHOLD_NULLS),
    )


def layer_tensors(names: dict[str, Path], arch: Architecture, layer: int, part: str, where: str) -> list[str]:
    """The tensors that scores (``qk``) or values and outputs (``ov``) of a layer's heads are made of.

    Raises:
        WeightsError: one is missing.
    """
    layout = arch.attention
    weights = [layout.fused] if layout.fused else [layout.query, layout.key] if part == "qk" else [layout.value]
    weights += [layout.norm, *((layout.query_norm, layout.key_norm, layout.sinks) if part == "qk" else ())]
    if part == "ov":
        weights += [arch.attention_out, arch.post_attention_norm]
    wanted = [resolve(names, arch, name.format(l=layer), where) for name in weights if name is not None]
    biases = (name.removesuffix("weight") + "bias" for name in wanted)
    return wanted + [name for name in biases if name in names]


def _check_offset(definition: AttentionDefinition, facts: AttentionFacts, layer: int) -> None:
    if definition.rope == "offset" and definition.offset == 0:
        return
    if facts.rope is None:
        raise UsageError(
            f"rope mode {definition.rope} at offset {definition.offset}",
            "offset 0: this model has learned positions, so scores of features do not depend on an offset",
        )
    farthest = {"offset": definition.offset, "mean": definition.offsets - 1}.get(definition.rope, 0)
    if facts.window is not None and farthest >= facts.window:
        raise UsageError(
            f"offset {farthest} at layer {layer}", f"at most {facts.window - 1}: this layer's window is {facts.window}"
        )
    if facts.rope.reach is not None and farthest >= facts.rope.reach:
        raise UsageError(
            f"offset {farthest}",
            f"at most {facts.rope.reach - 1}: beyond, this model turns its heads by other angles",
        )


def _layer_fingerprint(
    names: dict[str, Path], arch: Architecture, layer: int, part: str, where: str, memo: Path
) -> str:
    return fingerprint(names, layer_tensors(names, arch, layer, part, where), memo)
