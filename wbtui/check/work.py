"""The process behind ``wbtui check``: a JSON request on stdin, a JSON answer on stdout, then its memory is gone."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wbtui.display import safe_lines
from wbtui.errors import WbtuiError, WorkError

TOLERANCE = 1e-3


def check(request: dict[str, Any], said: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Compare a model, and an SAE, with the real thing.

    Args:
        request: {model: path, name; optionally sae: an SaeInfo's fields, prompts: texts, device, tolerance, index}.
        said: told what is being done.

    Returns:
        {model, model_type, prompts: words, tokens, rows: [Row as JSON], passed}.

    Raises:
        WeightsError: what cannot be read or loaded.
        WorkError: no room for the model.
    """
    from wbtui.catalog.models import model_info
    from wbtui.catalog.saes import SaeInfo
    from wbtui.check.compare import Row, embedding_row, layer_rows, logits_row
    from wbtui.check.dictionary import published_rows, sae_rows
    from wbtui.check.forward import PROMPTS, RealModel, bytes_available, bytes_needed, prompt_ids
    from wbtui.check.published import INDEX
    from wbtui.sources.checkpoint import Checkpoint

    folder = Path(request["model"])
    ckpt, info = Checkpoint(folder), model_info(request["name"], folder, "folder")
    tolerance = float(request.get("tolerance", TOLERANCE))
    ids, words = prompt_ids(folder, list(request.get("prompts") or PROMPTS), info.d_vocab)
    needed, free = bytes_needed(folder), bytes_available()
    if free is not None and needed > free:
        raise WorkError(
            f"{folder}: {needed / 1e9:.1f} GB in float32, {free / 1e9:.1f} GB of memory available",
            "room for the whole model, which a check builds once",
            "check it on a machine with more memory",
        )
    said(f"loading the model with transformers in float32 ({needed / 1e9:.2f} GB)")
    real = RealModel(ckpt, request.get("device", "cpu"), info.headless)
    said(f"one forward pass of {words}")
    seen = [real.run(one) for one in ids]
    layers = real.layers
    del real
    rows = [embedding_row(ckpt, seen, tolerance), logits_row(ckpt, seen, tolerance)]
    by_layer: list[tuple[Row, Row]] = []
    for layer in layers:
        said(f"layer {layer}: {info.n_heads} heads")
        by_layer.append(layer_rows(ckpt, layer, seen, tolerance))
    rows += [max(column, key=lambda row: row.difference or 0.0) for column in zip(*by_layer, strict=True)]
    for layer in info.headless:
        rows.append(Row("attention scores", f"layer {layer}", None, tolerance, "", "linear attention: no heads"))
    if request.get("sae") is not None:
        sae = SaeInfo(**request["sae"])
        said("the SAE with sae_lens")
        rows += sae_rows(ckpt, sae, seen)
        rows += published_rows(ckpt, sae, Path(request.get("index", INDEX)))
    return {
        "model": request["name"],
        "model_type": info.model_type,
        "prompts": words,
        "tokens": sum(len(one) for one in ids),
        "layers": [[row.to_json() for row in pair] for pair in by_layer],
        "rows": [row.to_json() for row in rows],
        "passed": all(row.passed is not False for row in rows),
    }


def main() -> None:
    """Answer one request."""
    from wbtui.sources.through_saelens import be_safe

    out = sys.stdout
    sys.stdout = sys.stderr  # libraries print what they like; stdout is the answer
    be_safe()
    try:
        request = json.load(sys.stdin)
        answer = check(request, lambda text: print(safe_lines(f"wbtui: {text}"), file=sys.stderr, flush=True))
    except WbtuiError as error:
        answer = {"error": error.to_json()}
    except MemoryError:
        answer = {"error": WbtuiError("out of memory", "", "a machine with room for the model in float32").to_json()}
    json.dump(answer, out)


if __name__ == "__main__":
    main()
