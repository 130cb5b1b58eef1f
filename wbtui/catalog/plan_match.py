"""From two SAEs at one place of the stream to the product that matches them. Standard library only."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wbtui.address import Address, parse_address
from wbtui.catalog.architectures import architecture_of
from wbtui.catalog.identity import model_fingerprint, sae_identity
from wbtui.catalog.models import ModelInfo, find_model, read_json
from wbtui.catalog.saes import SaeInfo, find_sae, stream_position
from wbtui.catalog.tensors import tensor_files
from wbtui.definitions import METHOD_VERSIONS, MatchDefinition, match_from_json, to_json
from wbtui.errors import UsageError
from wbtui.store.keys import ProductSpec, slug


@dataclass(frozen=True)
class MatchPlan:
    """The match of one SAE (``a``) with another (``b``). One product that is not made of rows."""

    model: ModelInfo
    sae: SaeInfo
    other_model: ModelInfo
    other: SaeInfo
    definition: MatchDefinition
    product: ProductSpec
    warnings: tuple[str, ...]
    analysis: str = "match"

    @property
    def other_address(self) -> Address:
        """Where ``b`` is, absolute, as a request names it."""
        return absolute_address(self.other_model, self.other)

    def all(self, checks: bool = True) -> list[ProductSpec]:
        """The product."""
        del checks
        return [self.product]


def absolute_address(model: ModelInfo, sae: SaeInfo) -> Address:
    """An address that means the same in every working folder."""
    where = model.path if model.kind == "folder" else model.name
    return Address(where, sae.path if sae.name.startswith(("/", ".", "~")) else sae.name)


def find_other(model: ModelInfo, text: str) -> tuple[ModelInfo, SaeInfo]:
    """What ``text`` means beside a model: an SAE of it by name or folder, or ``MODEL@SAE``.

    Raises:
        UsageError: no such model or SAE.
    """
    if "@" not in text:
        return model, find_sae(model, text)
    address = parse_address(text)
    if address.feature is not None:
        raise UsageError(f"{text!r}: a feature", "an SAE to match with", "leave #NUMBER out")
    found = find_model(address.model)
    return found, find_sae(found, address.sae or "")


def plan_match(
    model: ModelInfo,
    sae: SaeInfo,
    other_model: ModelInfo,
    other: SaeInfo,
    definition: MatchDefinition,
    cache: Path,
) -> MatchPlan:
    """Fingerprint both SAEs and name the product.

    Args:
        model, sae: ``a``.
        other_model, other: ``b``; of another model only where both are of one width (base and fine-tuned).
        definition: the numbers asked for.
        cache: the cache folder; only its fingerprint memo is written, and only if it can be.

    Raises:
        UsageError: the SAEs are not at one position of one width of stream; too many features for an assignment.
        WeightsError: files missing, damaged or not fitting.
    """
    match_from_json(to_json(definition))
    names = (f"{model.name}@{sae.name}", f"{other_model.name}@{other.name}")
    if model.d_model != other_model.d_model:
        raise UsageError(
            f"{names[0]} writes into a stream of width {model.d_model}, {names[1]} of {other_model.d_model}",
            "SAEs of one width of stream",
            "name two SAEs of one model, or of models of one width",
        )
    if stream_position(sae) != stream_position(other):
        raise UsageError(
            f"{names[0]} writes at {sae.site} of layer {sae.layer}, {names[1]} at {other.site} of layer {other.layer}",
            "SAEs at one position of the stream",
            "name two at one place (`wbtui saes MODEL`); `<` and `>` follow features through layers",
        )
    if definition.assign and max(sae.d_sae, other.d_sae) > MAX_ASSIGN:
        raise UsageError(
            f"an assignment of {sae.d_sae:,} to {other.d_sae:,} features",
            f"at most {MAX_ASSIGN:,} each",
            "leave --assign out: mutual nearest neighbours have no such limit",
        )
    memo = cache / "fingerprints"
    parts = [_parts(m, s, memo) for m, s in ((model, sae), (other_model, other))]
    warnings = []
    if parts[0]["model"] != parts[1]["model"]:
        warnings.append(
            f"two models, {model.name} and {other_model.name}: cosines compare directions of two streams, "
            "which mean the same only where one model was made from the other"
        )
    if parts[0]["centre"] != parts[1]["centre"]:
        raise UsageError(
            f"{names[0]} and {names[1]}: one model has LayerNorm, the other RMSNorm",
            "one kind of norm",
            "name two SAEs of one model, or of models of one kind",
        )
    if sae.site != other.site and not {sae.site, other.site} <= {"resid_pre", "resid_post"}:
        warnings.append(f"two sites, {sae.site} and {other.site}, that write at one position of the stream")
    identity: dict[str, Any] = {
        "analysis": "match",
        "method_version": METHOD_VERSIONS["match"],
        "centre": parts[0]["centre"],
        "sae": parts[0]["sae"],
        "other": parts[1]["sae"],
        "definition": to_json(definition),
    }
    spec = ProductSpec(
        "match",
        identity,
        rows=0,
        shard_rows=0,
        model={
            "name": model.name,
            "path": model.path,
            "other": dataclasses.asdict(other),
            "other_model": {"name": other_model.name, "path": other_model.path},
        },
        sae=dataclasses.asdict(sae),
        model_slug=slug(model.name, parts[0]["model"]),
        sae_slug=slug(sae.name, parts[0]["sae"]["fingerprint"]),
    )
    return MatchPlan(model, sae, other_model, other, definition, spec, tuple(warnings))


MAX_ASSIGN = 16_384


def _parts(model: ModelInfo, sae: SaeInfo, memo: Path) -> dict[str, Any]:
    folder = Path(model.path)
    where = str(folder)
    arch = architecture_of(read_json(folder / "config.json", "a config.json"), where)
    names = tensor_files(folder)
    return {
        "model": model_fingerprint(names, arch, model.tied, where, memo),
        "centre": arch.norm == "layer",
        "sae": sae_identity(names, arch, sae, where, memo),
    }
