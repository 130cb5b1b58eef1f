"""What a module that is run as a process of its own answers with (:func:`wbtui.features.vectors.in_a_process`)."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from wbtui.errors import WbtuiError


def answer(work: Callable[[dict[str, Any]], dict[str, Any]]) -> int:
    """The request as JSON on standard input, the answer or the error as JSON on standard output."""
    try:
        found: dict[str, Any] = {"ok": work(json.load(sys.stdin))}
    except WbtuiError as error:
        found = {"error": error.to_json()}
    json.dump(found, sys.stdout)
    return 0
