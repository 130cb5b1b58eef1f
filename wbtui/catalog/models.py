"""Models: the demo, local folders, and what the Hub cache on this machine already holds. Nothing is downloaded here."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wbtui import jsontext, settings
from wbtui.address import is_path
from wbtui.catalog.architectures import ARCHITECTURES, architecture_of, dimensions, effective_config
from wbtui.catalog.attention import headless_layers
from wbtui.catalog.registry import spellings
from wbtui.errors import UsageError, WbtuiError, WeightsError

DEMO = "demo"
DEMO_DIR = Path(__file__).resolve().parent.parent / "demo"
MAX_CONFIG_BYTES = 10_000_000


@dataclass(frozen=True)
class ModelInfo:
    """A model as a person names it, and its sizes."""

    name: str
    path: str
    kind: str
    """``demo``, ``folder`` or ``hub`` (the Hub cache on this machine)."""
    model_type: str
    d_model: int
    n_layers: int
    n_heads: int
    d_head: int
    d_mlp: int
    d_vocab: int
    tied: bool
    headless: tuple[int, ...] = ()
    """Layers without heads: they mix tokens by linear attention (Qwen3.5)."""


def read_json(path: Path, what: str) -> dict[str, Any]:
    """A small JSON object from a file.

    Raises:
        WeightsError: not there, too large, not JSON, not an object.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # reading a pipe or a device would never end
            raise WeightsError(f"{path}: not a regular file", what)
        size = found.st_size
        if size > MAX_CONFIG_BYTES:
            raise WeightsError(f"{path}: {size} bytes", f"{what} of at most {MAX_CONFIG_BYTES} bytes")
        data = jsontext.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror or error}", what) from None
    except jsontext.LongNumber as error:
        raise WeightsError(f"{path}: {error}", f"{what}, with numbers that a model can have") from None
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: not JSON ({error})", what) from None
    if not isinstance(data, dict):
        raise WeightsError(f"{path}: a JSON {type(data).__name__}", f"{what}, a JSON object")
    return data


def find_model(name: str) -> ModelInfo:
    """The model that ``name`` means: ``demo``, a folder, or a Hub id (``org/name[:revision]``) in the local Hub cache.

    Raises:
        UsageError: no such model.
        WeightsError: there, but its config cannot be read or its type is not supported.
    """
    if name == DEMO:
        return model_info(DEMO, DEMO_DIR / "model", "demo")
    if is_path(name):
        folder = Path(name).expanduser()
        if not folder.is_dir():
            raise UsageError(f"no model folder {name}", "a folder with config.json and safetensors files")
        return model_info(name, folder.resolve(), "folder")
    for root in model_roots():
        folder = root / name
        if ".." not in Path(name).parts and (folder / "config.json").is_file():
            return model_info(name, folder.resolve(), "folder")
    for spelled in (name, *spellings(name)):
        snapshot = hub_snapshot(spelled)
        if snapshot is not None:
            return model_info(spelled, snapshot, "hub")
    if Path(name).is_dir():
        raise UsageError(f"no model {name!r}", "demo, a Hub id, or a path", f"a folder is written ./{name}")
    raise UsageError(
        f"no model {name!r} here",
        "demo, a folder (./path), or a Hub id in the local Hub cache",
        f"see `wbtui models`; a Hub model is fetched by `wbtui download {name}`",
    )


def model_info(name: str, folder: Path, kind: str) -> ModelInfo:
    """Sizes out of ``folder/config.json``.

    Raises:
        WeightsError: no or bad config, unknown ``model_type``.
    """
    path = folder / "config.json"
    config = model_config(folder)
    dims = dimensions(config, str(path))
    layout = architecture_of(config, str(path)).attention
    return ModelInfo(
        name=name,
        path=str(folder),
        kind=kind,
        model_type=str(config["model_type"]),
        d_model=dims.d_model,
        n_layers=dims.n_layers,
        n_heads=dims.n_heads,
        d_head=dims.d_head,
        d_mlp=dims.d_mlp,
        d_vocab=dims.d_vocab,
        tied=dims.tied,
        headless=headless_layers(config, layout, dims.n_layers, str(path)),
    )


def model_config(folder: Path) -> dict[str, Any]:
    """A model's ``config.json`` in its effective form (:func:`wbtui.catalog.architectures.effective_config`).

    Raises:
        WeightsError: no or bad config, an unknown or other model type.
    """
    path = folder / "config.json"
    return effective_config(read_json(path, "a Hugging Face config.json"), str(path))


def list_models() -> list[ModelInfo]:
    """Every model that can be opened without a download: demo first, then local roots, then the Hub cache.

    Unsupported or unreadable ones are left out of the list; naming one says why it cannot be opened.
    """
    found: list[tuple[str, Path, str]] = [(DEMO, DEMO_DIR / "model", "demo")]
    for root in model_roots():
        if root.is_dir():
            found += [(p.name, p.resolve(), "folder") for p in sorted(root.iterdir()) if (p / "config.json").is_file()]
    hub = hub_cache_dir()
    if hub.is_dir():
        for repo in sorted(hub.glob("models--*")):
            name = repo.name.removeprefix("models--").replace("--", "/")
            snapshot = hub_snapshot(name)
            if snapshot is not None and _may_be_supported(snapshot):
                found.append((name, snapshot, "hub"))
    models = []
    for name, folder, kind in found:
        try:
            models.append(model_info(name, folder, kind))
        except WbtuiError:
            continue
    return models


def model_roots() -> list[Path]:
    """Folders of model folders: the setting ``model_roots``."""
    return list(settings.get("model_roots"))


def hub_cache_dir() -> Path:
    """Where huggingface_hub keeps its cache, by its own environment variables."""
    if value := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(value).expanduser()
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    return Path(home).expanduser() / "hub"


def hub_snapshot(name: str) -> Path | None:
    """The snapshot folder of a Hub id in the local cache, or None. ``name`` may end in ``:revision``."""
    repo, _, revision = name.partition(":")
    parts = repo.split("/")
    if len(parts) > 2 or any(not p or p in (".", "..") for p in parts) or "\0" in name:
        return None
    folder = hub_cache_dir() / ("models--" + "--".join(parts))
    revision = revision or "main"
    if ".." in Path(revision).parts:
        return None
    try:
        revision = (folder / "refs" / revision).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        pass  # a full commit hash has no ref file
    snapshot = folder / "snapshots" / revision
    return snapshot if (snapshot / "config.json").is_file() else None


def _may_be_supported(folder: Path) -> bool:
    try:
        return read_json(folder / "config.json", "a config").get("model_type") in ARCHITECTURES
    except WeightsError:
        return False
