"""Keys: a product's identity as 16 hex digits."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any


def canonical_json(data: Any) -> str:
    """JSON with sorted keys and no spaces; equal data give equal text."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(data: Any) -> str:
    """SHA-256 of canonical JSON, as hex."""
    return hashlib.sha256(canonical_json(data).encode()).hexdigest()


def slug(name: str, fingerprint: str) -> str:
    """A folder name for people: a slug of the name and 8 hex digits of the fingerprint; never a path."""
    base = re.sub(r"[^A-Za-z0-9._-]+", "-", name.rsplit("/", 2)[-1] if "/" in name else name).strip("-.") or "x"
    return f"{base[:48]}-{fingerprint[:8]}"


@dataclass(frozen=True)
class ProductSpec:
    """One product to be: enough to find it, and enough for a worker to compute it.

    ``identity`` alone makes the key: {analysis, method_version, model, sae, definition} with fingerprints and
    conventions. ``model`` and ``sae`` say where the files lie (name, path, …) and are in no key.
    """

    analysis: str
    identity: dict[str, Any]
    rows: int
    """Rows of the product; 0 for a whole product that is not made of rows (vocab)."""
    shard_rows: int
    model: dict[str, Any] = field(default_factory=dict)
    sae: dict[str, Any] | None = None
    model_slug: str = ""
    sae_slug: str = ""
    """Folder names below ``products/``; ``_model`` where a product belongs to no SAE."""

    @property
    def key(self) -> str:
        """First 16 hex digits of the SHA-256 of the identity."""
        return digest(self.identity)[:16]

    @property
    def relative(self) -> str:
        """The product's folder below the cache."""
        return f"products/{self.model_slug}/{self.sae_slug or '_model'}/{self.analysis}-{self.key}"

    def to_json(self) -> dict[str, Any]:
        """Plain data for manifests and the wire."""
        return {
            "analysis": self.analysis,
            "identity": self.identity,
            "rows": self.rows,
            "shard_rows": self.shard_rows,
            "model": self.model,
            "sae": self.sae,
            "model_slug": self.model_slug,
            "sae_slug": self.sae_slug,
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> ProductSpec:
        """The inverse of :meth:`to_json`."""
        return ProductSpec(**data)
