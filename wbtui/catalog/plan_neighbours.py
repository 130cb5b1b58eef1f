"""From a model and an SAE to the products of its nearest features, with their keys. Standard library only."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wbtui.catalog.architectures import architecture_of
from wbtui.catalog.identity import model_fingerprint, sae_identity
from wbtui.catalog.models import ModelInfo, read_json
from wbtui.catalog.saes import SaeInfo, beside, find_sae, list_saes
from wbtui.catalog.tensors import tensor_files
from wbtui.definitions import (
    DICTIONARY_NULLS,
    METHOD_VERSIONS,
    THRESHOLD_NULLS,
    NeighboursDefinition,
    NullDefinition,
    to_json,
)
from wbtui.errors import UsageError
from wbtui.store.keys import ProductSpec, slug

ALL = "all"
"""In place of an SAE's name: every SAE of the model."""
SAME, BEFORE, AFTER = "same", "before", "after"


@dataclass(frozen=True)
class Pair:
    """One SAE compared with another, or with itself."""

    other: SaeInfo
    role: str
    """``same``, ``before``, ``after`` (next to it in the stream), or empty."""
    product: ProductSpec
    nulls: tuple[ProductSpec, ...]
    """Random directions against the other SAE: isotropic, and with this SAE's own covariance."""

    def all(self) -> list[ProductSpec]:
        """Every product of the pair."""
        return [*self.nulls, self.product]


@dataclass(frozen=True)
class NeighboursPlan:
    """The comparisons of one SAE."""

    model: ModelInfo
    sae: SaeInfo
    definition: NeighboursDefinition
    pairs: tuple[Pair, ...]

    def all(self, checks: bool = True) -> list[ProductSpec]:
        """Every product once, pair by pair; there are no checks."""
        del checks
        out: dict[str, ProductSpec] = {}
        for pair in self.pairs:
            for spec in pair.all():
                out.setdefault(spec.relative, spec)
        return list(out.values())


def roles(saes: Sequence[SaeInfo], sae: SaeInfo) -> list[tuple[str, SaeInfo]]:
    """(role, SAE) of every SAE to compare with: itself first, then the ones beside it in the stream, then the rest.

    The SAE itself is found by its folder, so that one opened by its path is not taken for another.
    """
    before, after = beside(saes, sae)
    named = [(SAME, sae), *((role, s) for role, s in ((BEFORE, before), (AFTER, after)) if s is not None)]
    taken = {s.path for _, s in named}
    return [*named, *(("", s) for s in saes if s.path not in taken)]


def plan_neighbours(
    model: ModelInfo,
    sae: SaeInfo,
    definition: NeighboursDefinition,
    cache: Path,
    other: str | None = None,
    *,
    among: Sequence[SaeInfo] | None = None,
) -> NeighboursPlan:
    """Fingerprint the SAEs and name the products.

    Args:
        model: from :func:`wbtui.catalog.models.find_model`.
        sae: from :func:`wbtui.catalog.saes.find_sae`.
        definition: the numbers asked for.
        cache: the cache folder; only its fingerprint memo is written, and only if it can be.
        other: None for the SAE itself and those before and after it in the stream; ``all`` for every SAE of the
            model; else one SAE's name.
        among: compare with these instead.

    Raises:
        UsageError: no such SAE.
        WeightsError: files missing, damaged or not fitting.
    """
    known = roles(list_saes(model), sae)
    if among is not None:
        wanted = [(next((role for role, s in known if s.path == o.path), ""), o) for o in among]
    elif other is None:
        wanted = [(role, s) for role, s in known if role]
    elif other == ALL:
        wanted = known
    else:
        found = find_sae(model, other)
        wanted = [(next((role for role, s in known if s.path == found.path), ""), found)]
    memo = cache / "fingerprints"
    folder = Path(model.path)
    where = str(folder)
    arch = architecture_of(read_json(folder / "config.json", "a config.json"), where)
    names = tensor_files(folder)
    prints = {s.path: sae_identity(names, arch, s, where, memo) for s in (sae, *(s for _, s in wanted))}
    model_slug = slug(model.name, model_fingerprint(names, arch, model.tied, where, memo))
    own = prints[sae.path]
    body = to_json(definition)

    def spec(analysis: str, other: SaeInfo, null: NullDefinition | None = None) -> ProductSpec:
        with_own = null is None or null.kind in DICTIONARY_NULLS
        identity: dict[str, Any] = {
            "analysis": analysis,
            "method_version": METHOD_VERSIONS[analysis],
            "model_type": model.model_type,
            "centre": arch.norm == "layer",
            "sae": own if with_own else None,
            "other": prints[other.path],
            "definition": body if null is None else {"dtype": definition.dtype},
            **({} if null is None else {"null": to_json(null)}),
        }
        holder = sae if with_own else other
        return ProductSpec(
            analysis,
            identity,
            rows=sae.d_sae if null is None else null.n,
            shard_rows=2048 if sae.d_sae <= 65_536 else 16_384,
            model={"name": model.name, "path": model.path, "other": dataclasses.asdict(other)},
            sae=dataclasses.asdict(sae) if with_own else None,
            model_slug=model_slug,
            sae_slug=slug(holder.name, prints[holder.path]["fingerprint"]),
        )

    pairs = tuple(
        Pair(s, role, spec("neighbours", s), tuple(spec("neighbours_null", s, null) for null in THRESHOLD_NULLS))
        for role, s in wanted
    )
    if not pairs:
        raise UsageError(f"nothing to compare {model.name}@{sae.name} with", "an SAE of the same model")
    return NeighboursPlan(model, sae, definition, pairs)
