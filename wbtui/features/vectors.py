"""Asking for vectors: the work is done by a process of its own, for this one must not load torch."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wbtui.definitions import to_json
from wbtui.errors import WbtuiError, WorkError

if TYPE_CHECKING:
    from wbtui.catalog.plan import TokensPlan


def export_vectors(plan: TokensPlan, rows: np.ndarray | None, out: Path, *, where: str = "") -> dict[str, Any]:
    """Write directions, norms, encoder columns and biases of features (see :mod:`wbtui.compute.vectors`).

    Args:
        plan: model, SAE and definition.
        rows: feature numbers in the order wanted; None: all.
        out: a ``.safetensors`` file, written whole or not at all.
        where: the filter that chose the rows, for the metadata.

    Returns:
        dict: {rows, tensors, bytes}.

    Raises:
        WbtuiError: as the process says.
    """
    request = {
        "model": plan.model.path,
        "sae": dataclasses.asdict(plan.sae),
        "rows": None if rows is None else [int(row) for row in rows],
        "out": str(out.absolute()),
        "metadata": {
            "address": f"{plan.model.name}@{plan.sae.name}",
            "model": plan.model.name,
            "model_type": plan.model.model_type,
            "sae": plan.sae.name,
            "sae_fingerprint": str(plan.tokens.identity["sae"]["fingerprint"]),
            "definition": json.dumps(to_json(plan.definition), sort_keys=True),
            "where": where,
        },
    }
    return in_a_process("wbtui.compute.vectors", request, f"vectors of {plan.model.name}@{plan.sae.name}")


def in_a_process(module: str, request: dict[str, Any], what: str) -> dict[str, Any]:
    """Have a module that loads torch do something: JSON in and out.

    Raises:
        WbtuiError: as the process says.
    """
    done = subprocess.run(
        [sys.executable, "-m", module],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise WorkError(f"{what}: {last}") from None
    if "error" in answer:
        raise WbtuiError.from_json(answer["error"])
    return dict(answer["ok"])
