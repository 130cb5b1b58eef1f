"""What a model and an SAE are, by the bytes of the tensors that an analysis uses: the parts that keys are made of."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wbtui.catalog.architectures import Architecture
from wbtui.catalog.saes import SaeInfo
from wbtui.catalog.tensors import site_tensors, tokens_tensors
from wbtui.errors import WeightsError
from wbtui.store.fingerprints import tensors_fingerprint
from wbtui.tensorfile import read_header


def fingerprint(names: dict[str, Path], used: Iterable[str], memo: Path) -> str:
    """SHA-256 over the named tensors of a checkpoint.

    Args:
        names: from :func:`wbtui.catalog.tensors.tensor_files`.
        used: full tensor names.
        memo: folder of remembered digests.

    Raises:
        WeightsError: a file has not the tensor that the index names there.
    """
    files: dict[Path, list[str]] = {}
    for name in sorted(set(used)):
        if name not in read_header(names[name]).tensors:
            raise WeightsError(f"{names[name]}: no tensor {name}", "the tensor that the index names there")
        files.setdefault(names[name], []).append(name)
    return tensors_fingerprint(files, memo)


def model_fingerprint(names: dict[str, Path], arch: Architecture, tied: bool, where: str, memo: Path) -> str:
    """The fingerprint of E1's tensors, which also names the folder of all products of a model."""
    roles = tokens_tensors(names, arch, tied, where)
    biases = (roles[role].removesuffix("weight") + "bias" for role in ("final_norm", "unembedding"))
    return fingerprint(names, [*roles.values(), *(name for name in biases if name in names)], memo)


def sae_identity(names: dict[str, Path], arch: Architecture, sae: SaeInfo, where: str, memo: Path) -> dict[str, Any]:
    """An SAE as it stands in keys: its bytes, its conventions, and the model tensors that map it to the stream."""
    through = site_tensors(names, arch, sae.site, sae.layer, where, sae.conventions)
    files = {file: sorted(read_header(file).tensors) for file in sae.files}
    identity = {
        "fingerprint": tensors_fingerprint(files, memo),
        "architecture": sae.architecture,
        "site": sae.site,
        "layer": sae.layer,
        "conventions": sae.conventions,
        "through": fingerprint(names, through, memo) if through else "",
    }
    if sae.format != "saelens":  # the same bytes in another order would be other directions
        identity["format"] = sae.format
    return identity
