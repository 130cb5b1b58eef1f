"""What is computed of an SAE, without reading gigabytes to find out."""

from __future__ import annotations

from pathlib import Path

from wbtui.catalog.models import ModelInfo
from wbtui.catalog.plan import plan_tokens
from wbtui.catalog.saes import SaeInfo
from wbtui.definitions import TokensDefinition
from wbtui.errors import WbtuiError
from wbtui.store.fingerprints import is_remembered
from wbtui.store.products import Product

READ_BYTES = 100_000_000
"""Files up to this size together are fingerprinted at once; larger ones only when their SAE is opened or computed."""


def tokens_state(model: ModelInfo, sae: SaeInfo, definition: TokensDefinition, cache: Path) -> tuple[str, str]:
    """(state, error): ``complete``, ``partial`` or ``absent``; ``error`` with its line where the files cannot be read.

    An SAE of large files whose fingerprint is not remembered was never computed from this cache: ``absent``.
    """
    try:
        size = sum(file.stat().st_size for file in sae.files)
        if size > READ_BYTES and not all(is_remembered(file, cache / "fingerprints") for file in sae.files):
            return "absent", ""
        return Product(cache, plan_tokens(model, sae, definition, cache).tokens).state, ""
    except WbtuiError as error:
        return "error", error.line()
    except OSError as error:
        return "error", f"{error.filename}: {error.strerror or error}"
