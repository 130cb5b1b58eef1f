"""The process in which SAELens reads an SAE whose layout we do not: a JSON request on stdin, a JSON answer on stdout.

SAELens's own loader runs on files that are in the Hub cache already: no request is made, no pickled object is built.
What it gives is saved as a SAELens folder, held against what our reader of such folders makes of it (architecture,
hook, widths, conventions: methods 3.6), and only then shown to anyone. Which stream its directions are in, which layers
read it and what its encoder reads follow from that folder as from any other.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import warnings
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch

from wbtui.catalog.formats import read_candidate, recognise
from wbtui.catalog.formats.saelens import CONFIG, WEIGHTS, saelens_places
from wbtui.catalog.from_saelens import SOURCE, place
from wbtui.catalog.models import hub_cache_dir
from wbtui.errors import StoreError, UsageError, WbtuiError, WeightsError
from wbtui.sources.sae import DictionaryMatrix

SAFE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1",  # whatever a loader asks of torch.load, no object is unpickled
}


def be_safe() -> None:
    """Set :data:`SAFE` for this process, and the Hub cache that is ours; before anything of these libraries loads."""
    os.environ.update(SAFE, HF_HUB_CACHE=str(hub_cache_dir()))


def convert(name: str) -> dict[str, Any]:
    """Let SAELens read ``release/id`` and keep what it gives.

    Args:
        name: ``release/id`` of the installed SAELens's registry.

    Returns:
        {folder, loader, sae_lens}; or, where files are not in the Hub cache, {missing: words, repo, path}.

    Raises:
        UsageError: SAELens has no such SAE, or no loader for it.
        WeightsError: SAELens cannot read it, or what it gives is not understood.
        StoreError: the cache cannot be written.
    """
    lookup, sae_id, version = entry_of(name)
    about = {
        "repo": lookup.repo_id, "path": lookup.saes_map[sae_id], "loader": lookup.conversion_func or "sae_lens",
        "sae_lens": version,
    }  # fmt: skip
    sae, missing = load(name, lookup, sae_id, version)
    if missing:
        return {"missing": missing, **about}
    folder = place(name)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
    except OSError as error:
        raise StoreError(f"{folder.parent}: {error.strerror or error}", "a cache that can be written") from None
    try:
        _keep(sae, made, name, about)
        (made / SOURCE).write_text(json.dumps({"name": name, "model": lookup.model, **about}), encoding="utf-8")
        _publish(made, folder)
    except OSError as error:
        raise StoreError(f"{folder}: {error.strerror or error}", "room for the SAE in the cache") from None
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return {"folder": str(folder), **about}


def entry_of(name: str) -> tuple[Any, str, str]:
    """(SAELens's entry of the release, the SAE's id, SAELens's version).

    Raises:
        UsageError: no such release or SAE, or no loader. WeightsError: SAELens itself does not load.
    """
    try:
        import sae_lens
        from sae_lens.loading.pretrained_sae_loaders import NAMED_PRETRAINED_SAE_LOADERS
        from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory
    except Exception as error:  # an installation may be broken in any way
        raise WeightsError(
            f"{name}: SAELens cannot be loaded ({type(error).__name__}: {error})", "a working sae_lens",
            "pip install sae_lens",
        ) from None  # fmt: skip
    release, _, sae_id = name.partition("/")
    directory = get_pretrained_saes_directory()
    if release not in directory:
        near = get_close_matches(release, list(directory), n=3)
        raise UsageError(
            f"no release {release!r} in SAELens {sae_lens.__version__}", "one of " + ", ".join(near or ["its registry"])
        )
    lookup = directory[release]
    if sae_id not in lookup.saes_map:
        near = get_close_matches(sae_id, list(lookup.saes_map), n=3) or list(lookup.saes_map)[:3]
        raise UsageError(f"no SAE {sae_id!r} in {release}", "one of " + ", ".join(near))
    loader = lookup.conversion_func or "sae_lens"
    if loader not in NAMED_PRETRAINED_SAE_LOADERS:
        raise UsageError(
            f"{name} has the layout {loader!r}, for which SAELens {sae_lens.__version__} has no loader",
            "one of " + ", ".join(NAMED_PRETRAINED_SAE_LOADERS),
            "a newer SAELens may have it",
        )
    return lookup, sae_id, sae_lens.__version__


def load(name: str, lookup: Any, sae_id: str, version: str) -> tuple[Any, str]:
    """(SAELens's SAE in float32, nothing), or (None, which file is not in the Hub cache). Needs :data:`SAFE`.

    Args:
        name: ``release/id``; the rest from :func:`entry_of`.

    Raises:
        WeightsError: SAELens cannot read the files.
    """
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, OfflineModeIsEnabled
    from sae_lens import SAE

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return SAE.from_pretrained(lookup.release, sae_id, device="cpu", dtype="float32"), ""
    except (LocalEntryNotFoundError, EntryNotFoundError, OfflineModeIsEnabled, ConnectionError) as error:
        return None, " ".join(str(error).split())[:300]
    except MemoryError:
        raise
    except Exception as error:  # whatever goes wrong in another library is said, not raised as a fault of ours
        words = " ".join(str(error).split())[:300]
        raise WeightsError(
            f"{name}: SAELens {version} does not read it ({type(error).__name__}: {words})",
            f"files of the layout {lookup.conversion_func or 'sae_lens'!r}",
        ) from None


def _keep(sae: Any, folder: Path, name: str, about: dict[str, Any]) -> None:
    """Save it, and refuse what our reader of SAELens folders does not understand or what contradicts its config."""
    from safetensors.torch import save_file

    try:  # as its save_model does, which fails on the transposed views that its own loaders give
        state = sae.state_dict()
        sae.process_state_dict_for_saving(state)
        whole = {key: value.detach().clone(memory_format=torch.contiguous_format) for key, value in state.items()}
        save_file(whole, folder / WEIGHTS)
        (folder / CONFIG).write_text(json.dumps(sae.cfg.to_dict()), encoding="utf-8")
    except OSError:
        raise
    except Exception as error:
        raise WeightsError(
            f"{name}: SAELens {about['sae_lens']} does not save it ({type(error).__name__}: {str(error)[:200]})",
            "an SAE that can be saved",
        ) from None
    fields = read_candidate(recognise(folder))
    places = saelens_places(str(folder), fields["conventions"])
    DictionaryMatrix(places["decoder"], fields["d_sae"], fields["d_out"])
    if places["encoder"] is not None:
        DictionaryMatrix(places["encoder"], fields["d_sae"], fields["d_in"])


def _publish(made: Path, folder: Path) -> None:
    """In place of an older one, whole."""
    old = None
    if folder.exists():
        old = made.with_name(made.name + ".old")
        os.replace(folder, old)
    os.replace(made, folder)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def main() -> None:
    """Answer one request {name}."""
    out = sys.stdout
    sys.stdout = sys.stderr  # libraries print what they like; stdout is the answer
    be_safe()
    try:
        answer = convert(str(json.load(sys.stdin)["name"]))
    except WbtuiError as error:
        answer = {"error": error.to_json()}
    except MemoryError:
        answer = {"error": WbtuiError("out of memory", "", "a machine with room for the SAE in float32").to_json()}
    json.dump(answer, out)


if __name__ == "__main__":
    main()
