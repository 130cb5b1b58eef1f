"""Make the compact copy of SAELens's registry that the package carries: ``python tools/make_registry.py``.

Reads ``pretrained_saes.yaml`` of the installed sae_lens as data (sae_lens itself is not imported) and writes
``wbtui/catalog/registry.json.gz``: releases, SAE ids, paths in their repositories, mean L0, Neuronpedia's ids,
SAELens's loader.
"""

from __future__ import annotations

import datetime
import gzip
import importlib.metadata
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

TARGET = Path(__file__).resolve().parent.parent / "wbtui" / "catalog" / "registry.json.gz"


def compact(data: dict[str, Any], version: str, made: str) -> dict[str, Any]:
    """The registry without what no one here needs.

    Args:
        data: the parsed YAML: release -> ``model``, ``repo_id``, ``conversion_func``, ``saes``.
        version: of sae_lens.
        made: a date.

    Returns:
        dict: ``sae_lens``, ``made`` and ``releases``: name -> ``[model, repo, loader, [[id, path, l0 or null], …]]``;
            an SAE that Neuronpedia has carries its ``MODEL/SOURCE`` there as a fourth item.
    """
    releases = {}
    for name, item in data.items():
        saes = [
            [str(s["id"]), str(s["path"]), s.get("l0"), *([str(s["neuronpedia"])] if s.get("neuronpedia") else [])]
            for s in item["saes"]
        ]
        releases[name] = [item["model"], item["repo_id"], item.get("conversion_func") or "sae_lens", saes]
    return {"sae_lens": version, "made": made, "releases": releases}


def main() -> None:
    """Write the file and say what is in it."""
    import yaml

    spec = find_spec("sae_lens")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("sae_lens is not installed")
    source = Path(next(iter(spec.submodule_search_locations))) / "pretrained_saes.yaml"
    with source.open(encoding="utf-8") as file:
        data = yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    made = datetime.date.today().isoformat()
    out = compact(data, importlib.metadata.version("sae_lens"), made)
    raw = json.dumps(out, separators=(",", ":")).encode()
    TARGET.write_bytes(gzip.compress(raw, 9, mtime=0))
    count = sum(len(item[3]) for item in out["releases"].values())
    print(f"{TARGET}: {len(out['releases'])} releases, {count:,} SAEs, {TARGET.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
