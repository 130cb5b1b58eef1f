"""What every format's reader is made of: candidates, places of tensors, hints beside a file, small YAML. Stdlib only.

A reader turns a publisher's layout into a SAELens-like config, which
:func:`wbtui.catalog.saelens_config.parse_saelens_config` checks and maps to a site of the stream, and into *places*:
which tensor of which file is W_dec and W_enc, and which of its dimensions counts features.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wbtui.catalog.models import read_json
from wbtui.catalog.saelens_config import parse_saelens_config
from wbtui.errors import WeightsError
from wbtui.tensorfile import Header, TensorEntry, read_header

HINT_FILE = "wbtui.json"
"""A file that a user puts beside weights whose layout does not say what they were trained on."""
HINTS = ("model_name", "hook_name", "hook_name_out", "normalize_activations", "apply_b_dec_to_input")
MAX_YAML_BYTES = 1_000_000


@dataclass(frozen=True)
class Candidate:
    """Something that a format claims by its file names, not yet read."""

    format: str
    path: Path
    """The folder, or the file where a folder holds several SAEs."""
    entry: str = ""
    """Which of the SAEs in one file (a target layer of a cross-layer transcoder)."""

    @property
    def name(self) -> str:
        """What a person would call it."""
        return self.entry or self.path.name


@dataclass(frozen=True)
class Format:
    """One publisher's layout.

    Args:
        name: as stored in :class:`wbtui.catalog.saes.SaeInfo`.
        title: for people.
        layout: the files, for the support table.
        loaders: SAELens's names (``conversion_func``) of the registry entries that have this layout.
        notes: what is particular, for the support table.
        find: (folder, names of the files in it) -> candidates; looks at names, and at headers where one file holds
            several SAEs.
        read: a candidate -> the fields of ``SaeInfo`` that the files decide.
    """

    name: str
    title: str
    layout: str
    loaders: tuple[str, ...]
    notes: str
    find: Callable[[Path, frozenset[str]], Iterable[Candidate]]
    read: Callable[[Candidate], dict[str, Any]]


def place(
    entry: TensorEntry, file: Path, features: int, *, index: int | None = None, times: float = 1.0, over: float = 1.0
) -> dict[str, Any]:
    """Where a dictionary matrix lies, as plain JSON.

    Args:
        entry: its header entry.
        file: its file.
        features: the dimension that counts features.
        index: the target, where dimension 1 counts the target layers of a cross-layer transcoder.
        times, over: the values are multiplied by the one, divided by the other.
    """
    out: dict[str, Any] = {"file": str(file.absolute()), "tensor": entry.name, "features": features}
    if index is not None:
        out["index"] = index
    if times != 1.0:
        out["times"] = times
    if over != 1.0:
        out["over"] = over
    return out


def tensor(header: Header, *names: str) -> TensorEntry:
    """The first of ``names`` that a file holds.

    Raises:
        WeightsError: none of them.
    """
    for name in names:
        if name in header.tensors:
            return header.tensors[name]
    held = ", ".join(sorted(header.tensors)[:8])
    raise WeightsError(f"{header.path}: no tensor {names[0]}", " or ".join(names) + f" (it holds {held})")


def widths(
    where: Path,
    encoder: TensorEntry | None,
    decoder: TensorEntry,
    *,
    encoder_features: int,
    decoder_features: int,
    d_in: int | None = None,
    d_sae: int | None = None,
    declared: str = "",
) -> tuple[int, int, int]:
    """(d_in, d_sae, d_out) of two matrices in a format's order, held against each other and what a config declares.

    Args:
        encoder: W_enc; None where the encoder is the decoder transposed.
        encoder_features, decoder_features: the dimension that counts features in this format.
        d_in, d_sae: what the config or the name declares.
        declared: what fixes the orientation where both matrices are square (``nn.Linear``'s order, a config); empty:
            nothing does, and square matrices are refused.

    Raises:
        WeightsError: not matrices, contradictory sizes, or an orientation that nothing declares.
    """
    for entry in (decoder,) if encoder is None else (encoder, decoder):
        if len(entry.shape) != 2:
            raise WeightsError(f"{where}: {entry.name} has shape {list(entry.shape)}", "a matrix")
    n, out = decoder.shape[decoder_features], decoder.shape[1 - decoder_features]
    if encoder is None:
        width = out
    else:
        width = encoder.shape[1 - encoder_features]
        if encoder.shape[encoder_features] != n:
            raise WeightsError(
                f"{where}: {encoder.name} {list(encoder.shape)} and {decoder.name} {list(decoder.shape)}",
                "one number of features in both, in this format's order",
                "the matrices may be transposed; wbtui does not guess",
            )
    if width == n and not declared and d_in is None:
        raise WeightsError(
            f"{where}: {decoder.name} is {list(decoder.shape)}, square, and nothing says which side counts features",
            "declared sizes, or d_sae different from d_in",
            "save it as a SAELens folder",
        )
    for what, want, got in (("d_in", d_in, width), ("d_sae", d_sae, n)):
        if want is not None and want != got:
            raise WeightsError(f"{where}: {what} of the tensors is {got}", f"{want}, as its config or name says")
    return width, n, out


def described(
    candidate: Candidate,
    cfg: dict[str, Any],
    *,
    decoder: dict[str, Any],
    encoder: dict[str, Any] | None,
    mean: str | None = None,
    mean_file: Path | None = None,
    conventions: dict[str, Any] | None = None,
    n_layers: int | None = None,
    notes: Iterable[str] = (),
) -> dict[str, Any]:
    """The fields of ``SaeInfo``, from a SAELens-like config and the places of its matrices.

    Args:
        cfg: ``architecture``, ``d_in``, ``d_sae``, ``d_out``, ``hook_name``, ``model_name``, conventions.
        mean: the tensor that holds b_dec, in the decoder's file unless ``mean_file`` says otherwise.
        n_layers: how many layers the files say that the model has (cross-layer transcoders).
        conventions: added to what the config says; part of a product's key.
        notes: words for the user.

    Raises:
        WeightsError: as :func:`parse_saelens_config`.
    """
    hints = read_hints(candidate.path)
    cfg = {**cfg, **hints}
    fields = parse_saelens_config(cfg, str(candidate.path))
    fields["conventions"] |= conventions or {}
    weights: dict[str, Any] = {"decoder": decoder, "encoder": encoder}
    if mean is not None:
        weights["mean"] = {"file": str((mean_file or Path(decoder["file"])).absolute()), "tensor": mean}
    if n_layers is not None:
        weights["n_layers"] = n_layers
    return {**fields, "model_name": str(cfg.get("model_name") or ""), "weights": weights, "notes": list(notes)}


def read_hints(path: Path) -> dict[str, Any]:
    """What a ``wbtui.json`` beside the weights says of them; empty without one.

    Raises:
        WeightsError: there, but not a JSON object of known keys.
    """
    file = (path if path.is_dir() else path.parent) / HINT_FILE
    if not file.is_file():
        return {}
    data = read_json(file, "hints about an SAE")
    unknown = sorted(set(data) - set(HINTS))
    if unknown:
        raise WeightsError(f"{file}: {unknown[0]!r}", "some of " + ", ".join(HINTS))
    return data


def need_hook(candidate: Candidate, found: str | None, what: str) -> str:
    """A hook name, from the layout or from the hints.

    Raises:
        WeightsError: neither says.
    """
    hinted = read_hints(candidate.path).get("hook_name")
    if isinstance(hinted, str):
        return hinted
    if found is None:
        raise WeightsError(
            f"{candidate.path}: nothing says which hook it belongs to",
            what,
            f'put {HINT_FILE} beside it: {{"hook_name": "blocks.12.hook_resid_post", "model_name": "org/model"}}',
        )
    return found


def path_text(path: Path) -> str:
    """The last parts of a path as one string: repositories and folders name what is in them."""
    return "/".join(path.absolute().parts[-8:])


def number_in(text: str, pattern: str) -> int | None:
    """The last whole number that ``pattern`` captures."""
    found = re.findall(pattern, text)
    return int(found[-1]) if found and len(found[-1]) < 8 else None


def header_of(path: Path) -> Header:
    """As :func:`wbtui.tensorfile.read_header`, for formats' use."""
    return read_header(path)


def read_yaml(path: Path) -> dict[str, Any]:
    """Mappings of scalars out of a small YAML file: ``key: value`` and nested mappings by indentation.

    Lists, anchors and block scalars are skipped: no format here needs one. No YAML library is loaded.

    Raises:
        WeightsError: not there, too large, not UTF-8.
    """
    try:
        size = path.stat().st_size
        if size > MAX_YAML_BYTES:
            raise WeightsError(f"{path}: {size} bytes", f"at most {MAX_YAML_BYTES}")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror or error}", "a readable YAML file") from None
    except UnicodeDecodeError as error:
        raise WeightsError(f"{path}: not UTF-8 ({error.reason})", "a YAML file") from None
    root: dict[str, Any] = {}
    stack: list[tuple[int, dict[str, Any]]] = [(-1, root)]
    for line in text.splitlines():
        match = re.match(r"^( *)([A-Za-z_][\w.\-]*):(?:\s+(.*))?$", line)
        if not match:
            continue
        indent, key, raw = len(match.group(1)), match.group(2), (match.group(3) or "").strip()
        while stack[-1][0] >= indent:
            stack.pop()
        if raw and not raw.startswith("#"):
            stack[-1][1][key] = _scalar(raw)
        elif len(stack) < 20:
            child: dict[str, Any] = {}
            stack[-1][1][key] = child
            stack.append((indent, child))
    return root


def _scalar(raw: str) -> Any:
    if raw[0] in "\"'" and raw.find(raw[0], 1) > 0:
        return raw[1 : raw.find(raw[0], 1)]
    raw = raw.split(" #")[0].strip()
    if raw in ("null", "~", "Null", "NULL"):
        return None
    if raw in ("true", "True", "false", "False"):
        return raw.lower() == "true"
    for kind in (int, float):
        try:
            return kind(raw) if len(raw) < 40 else raw
        except ValueError:
            continue
    return raw
