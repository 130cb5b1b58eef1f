"""The attention products as a report reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wbtui.definitions import AttentionDefinition
from wbtui.errors import UsageError
from wbtui.report.data import HeadNull, HeadValues
from wbtui.store.products import Product

if TYPE_CHECKING:
    from wbtui.catalog.models import ModelInfo
    from wbtui.catalog.plan_attention import AttentionPlan
    from wbtui.catalog.saes import SaeInfo
    from wbtui.store.keys import ProductSpec

HeadWork = Callable[["AttentionPlan"], Any]
"""Computes what is missing of a plan and waits for it."""


def head_values(model: ModelInfo, sae: SaeInfo, cache: Path, work: HeadWork | None) -> HeadValues | str:
    """An SAE's heads under the default definition, or why there are none.

    Args:
        work: computes what is missing; None makes a missing product an error.

    Raises:
        UsageError: not computed, and computing was not wanted.
    """
    from wbtui.catalog.plan_attention import no_reader, plan_attention

    reason = no_reader(model, sae)
    if reason is not None:
        return reason
    plan = plan_attention(model, sae, AttentionDefinition(), cache)
    wanted = [*plan.nulls, plan.attention, *plan.checks]
    missing = [spec for spec in wanted if Product(cache, spec).state != "complete"]
    if missing and work is None:
        raise UsageError(
            f"{model.name}@{sae.name}: {len(missing)} attention products are not computed",
            "a finished computation",
            f"wbtui report {model.name} without --no-compute",
        )
    if missing and work is not None:
        work(plan)
    return read_heads(cache, plan)


def read_heads(cache: Path, plan: AttentionPlan) -> HeadValues:
    """The finished products of a plan, mapped."""

    def columns(spec: ProductSpec) -> dict[str, np.ndarray]:
        found = Product(cache, spec).columns()
        return {name: found[name] for name in found.names if not name.startswith("stream_mean.")}

    def null(spec: ProductSpec) -> HeadNull:
        which = spec.identity["null"]
        return HeadNull(str(which["kind"]), int(which["seed"]), columns(spec))

    definition = plan.definition
    caveats = "".join(f", {words}" for words in plan.facts.words)
    return HeadValues(
        layer=plan.layer,
        columns=columns(plan.attention),
        nulls=tuple(null(spec) for spec in plan.nulls),
        checks=tuple(null(spec) for spec in plan.checks),
        note=f"scale {definition.scale}, {definition.rope} {definition.offset}, scores before the softcap{caveats}",
    )
