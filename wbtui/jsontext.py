"""JSON of strangers: the standard library's reader, with numbers of absurd length named."""

from __future__ import annotations

import json
import re
from typing import Any

_KEYED = re.compile(r'"((?:[^"\\]|\\.){1,80})"\s*:\s*[\[\s]*-?(\d{1000,})')


class LongNumber(ValueError):
    """A whole number with more digits than Python turns into one (4,300): no size, and no JSON that anyone means."""


def loads(text: str | bytes) -> Any:
    """``json.loads``.

    Raises:
        LongNumber: with the key that holds the number, and how many digits it has.
        ValueError: not JSON. RecursionError: too deep.
    """
    try:
        return json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except ValueError as error:
        shown = text if isinstance(text, str) else text.decode("utf-8", "replace")
        found = max(_KEYED.finditer(shown), key=lambda match: len(match[2]), default=None)
        if found is None:
            raise LongNumber(f"a number too long to be read ({error})") from None
        raise LongNumber(f"{found[1]} is a number of {len(found[2]):,} digits") from None
