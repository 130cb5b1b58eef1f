"""One SAE of one model: what its files say it is, where in the stream it stands, and whether it fits the model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wbtui.catalog.formats import Candidate, read_candidate, recognise
from wbtui.catalog.formats.saelens import saelens_places
from wbtui.catalog.models import ModelInfo
from wbtui.errors import WeightsError


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
    weights: dict[str, Any] = field(default_factory=dict)
    """Places of W_dec, W_enc and b_dec (:func:`wbtui.catalog.formats.base.place`); empty: SAELens's own."""
    notes: list[str] = field(default_factory=list)
    """What a user of its numbers should know: a convention that is not verified, another model's name."""

    @property
    def places(self) -> dict[str, Any]:
        """``decoder``, ``encoder`` (None: the decoder transposed) and ``mean`` (b_dec; may be absent)."""
        return self.weights or saelens_places(self.path, self.conventions)

    @property
    def files(self) -> list[Path]:
        """The files that hold its tensors, each once."""
        items = (self.places.get(role) for role in ("decoder", "encoder", "mean"))
        return sorted({Path(item["file"]) for item in items if item})


def reader_layer(site: str, layer: int, n_layers: int) -> int | None:
    """The first attention layer that reads a site's stream (methods 3.6), None when no head does."""
    first = layer if site == "resid_pre" else layer + 1
    return first if first < n_layers else None


def stream_position(sae: SaeInfo) -> float:
    """Where in the residual stream an SAE's features are written: layers passed (methods 3.6).

    ``resid_post l`` and ``resid_pre l+1`` are one place; the middle of a layer, behind its attention, is ``l + 0.5``.
    """
    layer = sae.conventions.get("target_layer", sae.layer)  # a cross-layer transcoder writes at its target
    if sae.site == "resid_pre":
        return float(layer)
    return layer + (0.5 if sae.site in ("resid_mid", "attn_out", "hook_z") else 1.0)


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


def read_sae(model: ModelInfo, path: Path, name: str = "") -> SaeInfo:
    """An SAE from its folder or file, of any format, checked to fit the model.

    Args:
        model: the model.
        path: the folder or file; ``PATH:NAME`` picks one of several in it.
        name: what to call it; by default as its files do.

    Raises:
        UsageError: several SAEs are there and none is named.
        WeightsError: nothing that a format knows, unknown architecture or hook, a width or layer that the model has
            not.
    """
    entry = ""
    if not path.exists() and ":" in path.name:
        last, _, entry = path.name.partition(":")
        path = path.with_name(last)
    return read(model, recognise(path, entry), name)


def read(model: ModelInfo, candidate: Candidate, name: str = "") -> SaeInfo:
    """A candidate as one of the model's SAEs; a label of another model is noted, for widths alone prove nothing."""
    fields = read_candidate(candidate)
    path = candidate.path.absolute() if candidate.path.is_file() else candidate.path.resolve()
    target = fields["conventions"].get("target_layer", fields["layer"])
    info = SaeInfo(
        name=name or candidate.name,
        path=str(path) + (f":{candidate.entry}" if candidate.entry else ""),
        reader_layer=reader_layer(fields["site"], target, model.n_layers),
        **fields,
    )
    _check_fit(model, info, str(candidate.path))
    return info


def _check_fit(model: ModelInfo, info: SaeInfo, where: str) -> None:
    """Refuse what cannot belong to the model."""
    for layer in (info.layer, info.conventions.get("target_layer", info.layer)):
        if not 0 <= layer < model.n_layers:
            raise WeightsError(
                f"{where}: hook {info.hook_name} is at layer {layer}",
                f"a layer from 0 to {model.n_layers - 1} of {model.name}",
            )
    if info.weights.get("n_layers", model.n_layers) != model.n_layers:
        raise WeightsError(
            f"{where}: made for {info.weights['n_layers']} layers", f"{model.n_layers}, the layers of {model.name}"
        )
    widths = {"hook_z": model.n_heads * model.d_head, "mlp_post": model.d_mlp}
    want = widths.get(info.site, model.d_model)
    if info.d_in != want:
        raise WeightsError(
            f"{where}: d_in {info.d_in} at {info.hook_name}",
            f"{want}, the width of that hook in {model.name} (d_model {model.d_model})",
            "this SAE belongs to another model",
        )
