"""The work that a worker does, without what it takes: torch is imported by the first task that needs it, or by
:func:`warm` beside the others. The vocabulary and a lone feature's row are there before it would be.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wbtui.compute import lone
from wbtui.compute.memory import used_and_total
from wbtui.definitions import tokens_from_json
from wbtui.errors import WeightsError
from wbtui.store.keys import ProductSpec
from wbtui.store.products import Product

TILE = 256
"""Feature rows of a tile where nothing else is said."""


def never() -> bool:
    """A stop flag that stays down."""
    return False


def ignore(share: float) -> None:
    """Progress that nobody hears of."""
    del share


@dataclass(frozen=True)
class ShardTask:
    """One unit of work: rows [start, stop) of one product. Plain data, so that any executor can carry it.

    ``kind`` is ``shard`` or ``assemble`` (turn a product's finished shards into its columns file).
    """

    cache: str
    spec: dict[str, Any]
    start: int = 0
    stop: int = 0
    device: str = "cpu"
    tile: int = TILE
    kind: str = "shard"
    facts: dict[str, Any] = field(default_factory=dict)
    """For ``assemble``: what the manifest records beside the numbers (seconds, device, threads)."""


def compute_shard(
    task: ShardTask,
    *,
    stop: Callable[[], bool] = never,
    progress: Callable[[float], None] = ignore,
) -> str:
    """Compute one shard, or assemble a product: see :func:`wbtui.compute.shard.compute_shard`."""
    spec = ProductSpec.from_json(task.spec)
    if spec.analysis == "vocab" and task.kind == "shard":
        product = Product(Path(task.cache), spec)
        if not product.has(task.start, task.stop):
            product.begin()
            return write_vocabulary(product, task, progress)
    from wbtui.compute import shard

    return shard.compute_shard(task, stop=stop, progress=progress)


def write_vocabulary(product: Product, task: ShardTask, progress: Callable[[float], None]) -> str:
    """The whole ``vocab`` product; its path."""
    from wbtui.sources.vocabulary import read_vocabulary

    spec = product.spec
    product.write_whole(read_vocabulary(Path(spec.model["path"]), int(spec.identity["d_vocab"])), task.facts)
    progress(1.0)
    return str(product.path)


def compute_row(
    request: dict[str, Any],
    feature: int,
    device: str = "cpu",
    *,
    stop: Callable[[], bool] = never,
    progress: Callable[[float], None] = ignore,
) -> dict[str, Any]:
    """One feature's row alone, provisional: never stored, replaced by its shard's.

    With numpy on a CPU where nothing is prepared for torch (:mod:`wbtui.compute.lone`), else with torch. A first look
    (:func:`wbtui.service.planning.first_look`) has ``texts`` as well, and goes without torch on every device.

    Args:
        request: {cache, spec: the ``tokens`` product's JSON}.
        feature: its number.

    Returns:
        dict: column name -> number or list (JSON has no NaN: a non-finite number is None), and ``unmasked``: True where
        the mask was not there yet.
    """
    cache, spec = Path(request["cache"]), ProductSpec.from_json(request["spec"])
    first, found = spec, None
    if (device == "cpu" or first.model.get("unread")) and not _prepared(cache, spec, device):
        try:
            found = lone.row_columns(cache, spec, feature, stop)
        except WeightsError:
            found = None  # torch's path says the same, and where
    if found is None:
        from wbtui.compute import shard

        if spec.model.get("unread"):
            spec = _read_whole(cache, spec)
        found = shard.row_columns(cache, spec, feature, device, stop)
    columns, unmasked = found
    progress(1.0)
    out: dict[str, Any] = {"unmasked": unmasked}
    if first.model.get("unread"):
        out["texts"] = lone.texts(cache, first, columns)
    for name, array in columns.items():
        row = array[0]
        out[name] = [_plain(v) for v in row] if isinstance(row, np.ndarray) else _plain(row)
    return out


def _read_whole(cache: Path, spec: ProductSpec) -> ProductSpec:
    """The ``tokens`` product of a first look that takes torch: its weights are fingerprinted and its vocabulary made
    after all."""
    from wbtui.catalog.models import model_info
    from wbtui.catalog.plan import plan_tokens
    from wbtui.catalog.saes import SaeInfo

    definition = tokens_from_json({"name": "", **spec.identity["definition"]})
    model = model_info(spec.model["name"], Path(spec.model["path"]), "folder")
    plan = plan_tokens(model, SaeInfo(**(spec.sae or {})), definition, cache)
    compute_shard(ShardTask(str(cache), plan.vocab.to_json()))
    return plan.tokens


def _prepared(cache: Path, spec: ProductSpec, device: str) -> bool:
    """Whether torch has been imported and has the model's token matrices ready."""
    weights = sys.modules.get("wbtui.compute.weights")
    return weights is not None and hasattr(weights, "Weights") and weights.Weights(cache, spec, device).prepared()


def compute_page(
    request: dict[str, Any],
    feature: int,
    device: str = "cpu",
    *,
    stop: Callable[[], bool] = never,
    progress: Callable[[float], None] = ignore,
) -> dict[str, Any]:
    """One feature in all heads of a layer, never stored: see :func:`wbtui.compute.attention_lone.head_page`."""
    from wbtui.compute.attention_lone import head_page

    return head_page(request, feature, device, stop=stop, progress=progress)


def compute_ask(
    request: dict[str, Any],
    device: str = "cpu",
    *,
    stop: Callable[[], bool] = never,
    progress: Callable[..., None] = ignore,
) -> dict[str, Any]:
    """A question about every feature, never stored: see :mod:`wbtui.compute.ask`."""
    from wbtui.compute.ask import compute_ask

    return compute_ask(request, device, stop=stop, progress=progress)


def warm() -> None:
    """Import what shards take, in a thread of the worker's while it has nothing else to do."""
    import wbtui.compute.shard  # noqa: F401


def _plain(value: Any) -> float | int | None:
    number = value.item()
    if isinstance(number, float) and not np.isfinite(number):
        return None
    return number


def memory(device: str) -> tuple[int, int] | None:
    """Bytes used by anyone and in all; see :func:`wbtui.compute.memory.used_and_total`."""
    return used_and_total(device)
