"""A short-lived process that loads the heavy libraries, answers once in JSON, and gives all its memory back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from wbtui.errors import WbtuiError, WorkError


def answer_of(module: str, request: dict[str, Any], what: str, *, quiet: bool = True, hint: str = "") -> dict[str, Any]:
    """What ``python -m MODULE`` answers to a request on its stdin.

    Args:
        module: reads a JSON object, writes one.
        request: plain data.
        what: the process, in words.
        quiet: keep what it says on stderr.
        hint: what signal 9 mostly means.

    Raises:
        WbtuiError: what it answers, or how its process ended.
    """
    done = subprocess.run(
        [sys.executable, "-m", module],
        input=json.dumps(request),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if quiet else None,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
        check=False,
    )
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        how = f"was killed by signal {-done.returncode}" if done.returncode < 0 else f"ended with {done.returncode}"
        last = (done.stderr or "").strip().splitlines()[-1:] or [""]
        raise WorkError(f"{what} {how} {last[0][:300]}".strip(), "an answer", hint) from None
    if "error" in answer:
        raise WbtuiError.from_json(answer["error"])
    return answer
