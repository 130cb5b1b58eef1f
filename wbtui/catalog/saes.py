"""SAEs of a model: the demo's, those in a model folder's ``saes/``, and those below ``WBTUI_SAE_ROOTS``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from wbtui import settings
from wbtui.address import is_path
from wbtui.catalog.models import DEMO, DEMO_DIR, ModelInfo, read_json
from wbtui.catalog.saelens_config import parse_saelens_config
from wbtui.errors import UsageError, WbtuiError, WeightsError

WEIGHTS = "sae_weights.safetensors"
CONFIG = "cfg.json"
MAX_DEPTH = 4
MAX_FOLDERS = 20_000


@dataclass(frozen=True)
class SaeInfo:
    """One dictionary at one hook of one model, from its config alone."""

    name: str
    """Short and unique within the model: ``L3``, ``L3-seed2``."""
    path: str
    format: str
    architecture: str
    hook_name: str
    layer: int
    site: str
    """``resid_pre``, ``resid_mid``, ``resid_post``, ``attn_out``, ``mlp_out``, ``hook_z``, ``mlp_post``, ``mlp_in``."""
    d_in: int
    d_out: int
    d_sae: int
    conventions: dict[str, Any] = field(default_factory=dict)
    model_name: str = ""
    """The model that the SAE's own config names; a label."""
    reader_layer: int | None = None
    """First layer whose heads read what this writes; None behind the last layer (methods 3.6)."""


def reader_layer(site: str, layer: int, n_layers: int) -> int | None:
    """The first attention layer that reads a site's stream (methods 3.6), None when no head does."""
    first = layer if site == "resid_pre" else layer + 1
    return first if first < n_layers else None


def stream_position(sae: SaeInfo) -> float:
    """Where in the residual stream an SAE's features are written: layers passed (methods 3.6).

    ``resid_post l`` and ``resid_pre l+1`` are one place; the middle of a layer, behind its attention, is ``l + 0.5``.
    """
    if sae.site == "resid_pre":
        return float(sae.layer)
    return sae.layer + (0.5 if sae.site in ("resid_mid", "attn_out", "hook_z") else 1.0)


def beside(saes: Sequence[SaeInfo], sae: SaeInfo) -> tuple[SaeInfo | None, SaeInfo | None]:
    """The SAEs of the stream positions before and after one's own that have any: (before, after), None at an end.

    SAEs of the stream go with SAEs of the stream, those of another site with their own site. Where several share a
    position, the one whose name differs by the layer alone, else the one of the same width, else the first.
    """
    here, on_stream = stream_position(sae), sae.site.startswith("resid_")
    alike = [s for s in saes if (s.site.startswith("resid_") if on_stream else s.site == sae.site)]
    style = _style(sae)

    def nearest(sign: int) -> SaeInfo | None:
        beyond = [s for s in alike if (stream_position(s) - here) * sign > 0]
        if not beyond:
            return None
        at = min((stream_position(s) for s in beyond), key=lambda p: abs(p - here))
        there = [s for s in beyond if stream_position(s) == at]
        return min(there, key=lambda s: (_style(s) != style, s.d_sae != sae.d_sae))

    return nearest(-1), nearest(1)


def _style(sae: SaeInfo) -> str:
    return re.sub(r"\d+", "", sae.name.removeprefix(f"L{sae.layer}")) if sae.name.startswith("L") else sae.site


def read_sae(model: ModelInfo, folder: Path, name: str = "") -> SaeInfo:
    """An SAE from its folder, checked to fit the model.

    Raises:
        WeightsError: no config or weights, unknown architecture or hook, a width or layer that the model has not.
    """
    where = folder / CONFIG
    if not (folder / WEIGHTS).is_file():
        raise WeightsError(f"{folder}: no {WEIGHTS}", f"a SAELens folder with {CONFIG} and {WEIGHTS}")
    config = read_json(where, "a SAELens cfg.json")
    parsed = parse_saelens_config(config, str(where))
    metadata = config.get("metadata")
    named = (metadata if isinstance(metadata, dict) else {}).get("model_name") or config.get("model_name") or ""
    info = SaeInfo(
        name=name or folder.name,
        path=str(folder.resolve()),
        format="saelens",
        model_name=str(named),
        reader_layer=reader_layer(parsed["site"], parsed["layer"], model.n_layers),
        **parsed,
    )
    _check_fit(model, info, str(where))
    return info


def _check_fit(model: ModelInfo, info: SaeInfo, where: str) -> None:
    """Refuse what cannot belong to the model."""
    if not 0 <= info.layer < model.n_layers:
        raise WeightsError(
            f"{where}: hook {info.hook_name} is at layer {info.layer}",
            f"a layer from 0 to {model.n_layers - 1} of {model.name}",
        )
    widths = {"hook_z": model.n_heads * model.d_head, "mlp_post": model.d_mlp}
    want = widths.get(info.site, model.d_model)
    if info.d_in != want:
        raise WeightsError(
            f"{where}: d_in {info.d_in} at {info.hook_name}",
            f"{want}, the width of that hook in {model.name} (d_model {model.d_model})",
            "this SAE belongs to another model",
        )


def list_saes(model: ModelInfo) -> list[SaeInfo]:
    """Every SAE that belongs to the model: by place (demo, ``saes/`` in its folder) or by the model name in its config.

    Sorted by layer, then name. Folders that cannot be read or do not fit are left out; naming one says why.
    """
    found: list[SaeInfo] = []
    for root, trusted in _roots(model):
        for folder in _sae_folders(root):
            try:
                info = read_sae(model, folder)
            except WbtuiError:
                continue
            if trusted or _same_model(model, info.model_name):
                found.append(info)
    found.sort(key=lambda s: (s.layer, s.site != "resid_post", s.site, s.name))
    return _unique_names(found)


def find_sae(model: ModelInfo, name: str) -> SaeInfo:
    """The SAE that ``name`` means: a short name of :func:`list_saes`, a bare layer number, or a folder.

    Raises:
        UsageError: no such SAE; the nearest names are offered.
        WeightsError: a folder that is there but cannot be used.
    """
    if is_path(name):
        folder = Path(name).expanduser()
        if not folder.is_dir():
            raise UsageError(f"no SAE folder {name}", f"a SAELens folder with {CONFIG} and {WEIGHTS}")
        return replace(read_sae(model, folder), name=name)
    saes = list_saes(model)
    by_name = {sae.name: sae for sae in saes}
    wanted = f"L{name}" if name.isdigit() else name
    for candidate in (name, wanted):
        if candidate in by_name:
            return by_name[candidate]
    folded = {sae.name.casefold(): sae for sae in saes}
    if wanted.casefold() in folded:
        return folded[wanted.casefold()]
    match = re.fullmatch(r"[Ll](\d+)", wanted)
    if match and int(match.group(1)) >= model.n_layers:
        raise UsageError(f"layer {match.group(1)} of {model.name}", f"a layer from 0 to {model.n_layers - 1}")
    near = get_close_matches(name, list(by_name), n=3) or list(by_name)[:8]
    raise UsageError(
        f"no SAE {name!r} of {model.name}",
        ("one of " + ", ".join(near)) if near else "an SAE folder (./path); none is known for this model",
        f"`wbtui saes {model.name}` lists them",
    )


def sae_roots() -> list[Path]:
    """Folders to look for SAEs in: the setting ``sae_roots``."""
    return list(settings.get("sae_roots"))


def _roots(model: ModelInfo) -> list[tuple[Path, bool]]:
    """(root, whether everything in it belongs to the model)."""
    own = DEMO_DIR / "saes" if model.kind == DEMO else Path(model.path) / "saes"
    return [(own, True)] + [(root, False) for root in sae_roots()]


def _sae_folders(root: Path) -> list[Path]:
    """Folders with a SAELens config below ``root``, depth and number bounded (symlink loops end there)."""
    out: list[Path] = []
    seen = 0
    queue = [(root, 0)]
    while queue and seen < MAX_FOLDERS:
        folder, depth = queue.pop(0)
        seen += 1
        try:
            if (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file():
                out.append(folder)
            elif depth < MAX_DEPTH:
                queue += [(child, depth + 1) for child in sorted(folder.iterdir()) if child.is_dir()]
        except OSError:
            continue
    return out


def _same_model(model: ModelInfo, named: str) -> bool:
    """Whether a config's model label names this model: equal, or equal in its last part."""
    if not named:
        return False
    ours = {model.name.split(":")[0], Path(model.name).name.split(":")[0]}
    return named in ours or named.rsplit("/", 1)[-1] in ours


def _unique_names(saes: list[SaeInfo]) -> list[SaeInfo]:
    """Short names: ``L3``, with the site where it is not resid_post; the folder's name where that is not unique."""
    taken: set[str] = set()
    out = []
    for sae in saes:
        folder = Path(sae.path).name
        short = f"L{sae.layer}" + ("" if sae.site == "resid_post" else f"-{sae.site}")
        name = folder if re.match(rf"L{sae.layer}(?!\d)", folder) else short
        if name in taken:
            name = f"{short}-{folder}"
        base, count = name, 2
        while name in taken:
            name = f"{base}-{count}"
            count += 1
        taken.add(name)
        out.append(replace(sae, name=name))
    return out
