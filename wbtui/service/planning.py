"""From a request to the products that it means and the shards that are missing. May hash gigabytes."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wbtui.errors import UsageError
from wbtui.service.wishes import AskRequest, PageRequest, RowRequest
from wbtui.service.work import PlannedProduct

if TYPE_CHECKING:
    from wbtui.store.keys import ProductSpec

    Planner = Callable[[dict[str, Any]], list[ProductSpec]]


def load_planner(name: str) -> Planner:
    """The planner called ``module:function``.

    Raises:
        UsageError: no such module or function.
    """
    module_name, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module_name), function)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"planner {name!r} ({error})", "module:function") from None


def products_of(request: dict[str, Any]) -> list[ProductSpec]:
    """Every product of a request {model, sae, definition, cache, analysis, layer, other, checks}, each after what it
    needs.

    ``tokens`` (the default) is E1 with its nulls; ``attention`` is E2 and OV of one reading layer with theirs;
    ``neighbours`` the nearest features in the SAE itself and others, with theirs; ``match`` another dictionary.

    Raises:
        UsageError: unknown model, SAE or definition field.
        WeightsError: files that cannot be read or do not fit.
    """
    from wbtui.catalog.models import find_model
    from wbtui.catalog.plan import plan_tokens
    from wbtui.catalog.plan_attention import plan_attention
    from wbtui.catalog.plan_match import find_other, plan_match
    from wbtui.catalog.plan_neighbours import plan_neighbours
    from wbtui.catalog.saes import find_sae
    from wbtui.definitions import attention_from_json, match_from_json, neighbours_from_json, tokens_from_json

    analysis = request.get("analysis", "tokens")
    checks = bool(request.get("checks", True))
    cache = Path(request["cache"])
    model = find_model(request["model"])
    sae = find_sae(model, request["sae"])
    try:
        if analysis == "attention":
            heads = attention_from_json(request["definition"])
            return plan_attention(model, sae, heads, cache, request.get("layer")).all(checks=checks)
        if analysis == "neighbours":
            near = neighbours_from_json(request["definition"])
            return plan_neighbours(model, sae, near, cache, request.get("other")).all()
        if analysis == "match":
            pair = find_other(model, str(request.get("other")))
            return plan_match(model, sae, *pair, match_from_json(request["definition"]), cache).all()
        return plan_tokens(model, sae, tokens_from_json(request["definition"]), cache).all(checks=checks)
    except TypeError as error:
        raise UsageError(f"definition ({error})", f"the fields of a definition of {analysis}") from None


def plan(planner: Planner, request: dict[str, Any]) -> list[PlannedProduct]:
    """The products of a request and what of them is missing on disk.

    Args:
        planner: see :func:`products_of`.
        request: {model, sae, definition, cache, checks}.

    Raises:
        WbtuiError: from the planner, or StoreError for a cache that cannot be read.
    """
    cache = Path(request["cache"])
    return [look(cache, spec) for spec in planner(request)]


def first_look(request: RowRequest) -> PageTask:
    """The task of a row whose weights have not been fingerprinted: nothing large is read for it.

    Raises:
        UsageError: no such model, SAE or feature. WeightsError: files that cannot be read or do not fit.
    """
    from wbtui.catalog.models import find_model
    from wbtui.catalog.plan import plan_tokens
    from wbtui.catalog.saes import find_sae
    from wbtui.definitions import tokens_from_json

    model = find_model(request.model)
    sae = find_sae(model, request.sae)
    if request.feature >= sae.d_sae:
        raise UsageError(f"feature {request.feature}", f"0 to {sae.d_sae - 1}")
    try:
        definition = tokens_from_json(request.definition)
    except TypeError as error:
        raise UsageError(f"definition ({error})", "the fields of a definition of tokens") from None
    spec = plan_tokens(model, sae, definition, Path(request.cache), unread=True).tokens
    task = {"kind": "row", "request": {"cache": request.cache, "spec": spec.to_json()}, "feature": request.feature}
    return PageTask("\n".join(["first", request.cache, spec.relative, str(request.feature)]), task, ())


@dataclass(frozen=True)
class PageTask:
    """A head page, or a question, as the scheduler takes it."""

    id: str
    task: dict[str, Any]
    words: tuple[PlannedProduct, ...]
    """The vocabulary, where it must be made first."""


def page_task(request: PageRequest, plans: Sequence[Sequence[PlannedProduct]]) -> PageTask:
    """From the plans of :meth:`PageRequest.wishes`, in their order, to the task.

    Raises:
        UsageError: no such feature.
    """
    found = iter(plans)
    heads = next(p for p in next(found) if p.analysis == "attention")
    d_sae = int((heads.spec.get("sae") or {}).get("d_sae", 0))
    if request.feature >= d_sae:
        raise UsageError(f"feature {request.feature}", f"0 to {d_sae - 1}")
    body: dict[str, Any] = {"cache": request.cache, "spec": heads.spec}
    words: tuple[PlannedProduct, ...] = ()
    parts = [heads.id, str(request.feature)]
    if request.tokens is not None:
        planned = next(found)
        tokens = next(p for p in planned if p.analysis == "tokens")
        words = tuple(p for p in planned if p.analysis == "vocab" and not p.complete)
        body["tokens"] = tokens.spec
        parts.append(tokens.id)
    if request.target is not None:
        target = next(p for p in next(found) if p.analysis == "tokens")
        body["target"] = target.spec["sae"]
        parts.append(target.id)
    task = {"kind": "page", "request": body, "feature": request.feature}
    return PageTask("\n".join(["page", *parts]), task, words)


def ask_task(request: AskRequest, planned: Sequence[PlannedProduct]) -> PageTask:
    """From the plan of :meth:`AskRequest.plan_request` to the task; the same question asked twice is one."""
    tokens = next(p for p in planned if p.analysis == "tokens")
    words = tuple(p for p in planned if p.analysis == "vocab" and not p.complete)
    body = {"cache": request.cache, "spec": tokens.spec, "what": request.what, "args": request.args}
    name = "\n".join(["ask", tokens.id, request.what, json.dumps(request.args, sort_keys=True)])
    return PageTask(name, {"kind": "ask", "request": body}, words)


def look(cache: Path, spec: ProductSpec) -> PlannedProduct:
    """One product as it stands in the store."""
    from wbtui.store.products import Product

    product = Product(cache, spec)
    complete = product.state == "complete"
    if complete and product.shards() and os.access(product.path, os.W_OK):
        complete = False  # killed between the last two steps of putting it together: the shards are still to go
    missing: tuple[tuple[int, int], ...] = ()
    if not complete:
        missing = tuple((start, stop) for start, stop in product.missing())
    return PlannedProduct(
        cache=str(cache),
        spec=spec.to_json(),
        relative=spec.relative,
        key=spec.key,
        missing=missing,
        complete=complete,
    )


def tidy(cache: str, most: int) -> dict[str, Any]:
    """Evict what was used longest ago until a cache's products take at most ``most`` bytes; see
    :func:`wbtui.store.cache.gc`."""
    from wbtui.store.cache import gc

    report = gc(Path(cache), most)
    return {"removed": report.removed, "bytes": report.removed_bytes, "kept": report.kept_bytes, "over": report.over}
