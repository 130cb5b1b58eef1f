"""A steering file that lm-evaluation-harness reads (``--model steered``, ``steer_path=….csv``).

One row a feature: ``loader`` (sae_lens), ``action`` (add, clamp), ``sparse_model`` (SAELens release or Hub repository),
``hookpoint`` (a module below the model's base: its output is steered), ``feature_index``, ``steering_coefficient``
(times the SAE's own decoder row), ``head_index`` (empty), ``sae_id``, ``description``. The harness keeps one row for
each hookpoint, the last, so that a file holds one feature here. As of 0.4.13 it refuses ``add`` for every SAE that has
a ``b_dec``, as all of SAELens's have; a ``.pt`` (:mod:`wbtui.compute.steering`) holds the vector itself: it steers by
``add``, and needs no SAE library and no published SAE.
"""

from __future__ import annotations

import csv
import dataclasses
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from wbtui.catalog.architectures import architecture_of
from wbtui.catalog.models import ModelInfo, read_json
from wbtui.catalog.registry import find_entry
from wbtui.catalog.saes import SaeInfo
from wbtui.display import file_text
from wbtui.errors import StoreError, UsageError
from wbtui.features.export import guard
from wbtui.features.vectors import in_a_process

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable

COLUMNS = (
    "loader", "action", "sparse_model", "hookpoint", "feature_index", "steering_coefficient", "head_index", "sae_id",
    "description",
)  # fmt: skip
ACTIONS = ("add", "clamp")
_SNAPSHOT = re.compile(r"/models--([^/]+)--([^/]+)/snapshots/[0-9a-f]+/?(.*)$")


def source_of(sae: SaeInfo, release: str | None = None, sae_id: str | None = None) -> tuple[str, str]:
    """``sparse_model`` and ``sae_id``: as given, else by SAELens's registry, else by the place in the Hub cache.

    Raises:
        UsageError: the SAE is a folder of this machine, which the harness cannot load.
    """
    if release and sae_id:
        return release, sae_id
    entry = find_entry(sae.name) if "/" in sae.name else None
    if entry is not None:
        return release or entry.release, sae_id or entry.sae
    place = _SNAPSHOT.search(sae.path)
    if place is not None and place.group(3):
        return release or f"{place.group(1)}/{place.group(2)}", sae_id or place.group(3)
    raise UsageError(
        f"{sae.name}: a local SAE ({sae.path})",
        "one that SAELens can load by name",
        "-o FILE.pt holds the vector itself; or say where it is published: --release REPO --sae-id FOLDER",
    )


def hookpoint_of(model: ModelInfo, sae: SaeInfo) -> str:
    """The module whose output is the hook's place, named below the model's base as the harness looks it up.

    Raises:
        UsageError: no module of the model puts that out.
    """
    folder = Path(model.path)
    arch = architecture_of(read_json(folder / "config.json", "a config.json"), str(folder))
    layer = sae.layer
    blocks = arch.attention_out.partition(".{l}.")[0]
    if sae.site == "resid_post":
        return f"{blocks}.{layer}"
    if sae.site == "resid_pre" and layer > 0:
        return f"{blocks}.{layer - 1}"
    if sae.site in ("mlp_out", "mlp_in"):
        return _module(arch.post_mlp_norm, arch.mlp_out, layer)
    if sae.site == "attn_out":
        return _module(arch.post_attention_norm, arch.attention_out, layer)
    raise UsageError(
        f"an SAE at {sae.hook_name}: no module of {model.name} puts that out",
        "resid_post, resid_pre behind the first layer, attn_out or mlp_out",
        "--vectors writes its directions in the residual stream",
    )


def _module(norm: str | None, weight: str, layer: int) -> str:
    """The norm behind a sublayer where there is one (its output is what is added), else the sublayer itself."""
    name = norm.removesuffix(".weight") if norm is not None else weight.removesuffix(".weight").rpartition(".")[0]
    return name.format(l=layer)


def write_steering(
    table: FeatureTable,
    rows: list[int],
    out: Path,
    *,
    coefficient: float,
    action: str = "add",
    release: str | None = None,
    sae_id: str | None = None,
) -> list[Path]:
    """Write one CSV, or into a folder one a feature.

    Args:
        table: the features.
        rows: their numbers.
        out: a ``.csv`` or ``.pt`` file for one feature, a folder of ``.csv`` for several.
        coefficient: ``steering_coefficient``.
        action: ``add`` or ``clamp``.
        release, sae_id: where SAELens finds the SAE.

    Raises:
        UsageError: several features in one file; an SAE or hook that the harness cannot use.
        StoreError: the place cannot be written.
    """
    if action not in ACTIONS:
        raise UsageError(f"action {action!r}", "one of " + ", ".join(ACTIONS))
    if table.plan is None or not rows:
        raise UsageError("no feature to steer", "at least one feature of an SAE")
    tensor = out.suffix.lower() in (".pt", ".pth")
    one = tensor or out.suffix.lower() == ".csv"
    if one and len(rows) > 1:
        raise UsageError(
            f"{len(rows)} features in {out.name}",
            "one: lm-evaluation-harness keeps only the last row of a hookpoint",
            "name a folder (-o DIR/): a file a feature; or one feature, ADDRESS#NUMBER",
        )
    model, sae = table.plan.model, table.plan.sae
    hookpoint = hookpoint_of(model, sae)
    if tensor:
        request = {
            "model": model.path, "sae": dataclasses.asdict(sae), "feature": rows[0], "hookpoint": hookpoint,
            "coefficient": float(coefficient), "action": action, "out": str(out.absolute()),
        }  # fmt: skip
        in_a_process("wbtui.compute.steering", request, f"steering vector of {table.origin.address(rows[0])}")
        return [out]
    source = source_of(sae, release, sae_id)
    files = []
    try:
        if not one:
            out.mkdir(parents=True, exist_ok=True)
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", sae.name).strip("-.") or "sae"
        for row in rows:
            words = " ".join(word.text for word in table.words(row, k=5) if not word.inside_null)
            about = table.sentence(row).lower() + (f": {words}" if words else "")
            line = (
                "sae_lens", action, file_text(source[0]), file_text(hookpoint), row, repr(float(coefficient)), "",
                file_text(source[1]), guard(about),
            )  # fmt: skip
            path = out if one else out / f"{stem}-{row}.csv"
            temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            try:
                with temporary.open("w", encoding="utf-8", newline="") as file:
                    writer = csv.writer(file, lineterminator="\n")
                    writer.writerow(COLUMNS)
                    writer.writerow(line)
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
            files.append(path)
    except OSError as error:
        raise StoreError(f"{out}: {error.strerror or error}", "a place that can be written") from None
    return files
