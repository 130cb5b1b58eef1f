"""Regular expressions that a person may type: those that could take for ever are refused before they run."""

from __future__ import annotations

import re
import warnings
from functools import lru_cache
from typing import Any

from wbtui.errors import UsageError

MAX_LENGTH = 200
MAX_REPEATS = 3
_REPEATS = ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")


@lru_cache(maxsize=64)
def compiled(pattern: str) -> re.Pattern[str]:
    """The pattern, ready; case does not matter unless it says ``(?-i:…)``.

    Python's engine tries every way to split a text between nested or neighbouring repeats, so a repeat inside a repeat,
    an alternative inside a repeat, back references and more than three open-ended repeats are refused. Matching looks
    at the first 64 characters of a token.

    Raises:
        UsageError: not a regular expression, or one that could take for ever.
    """
    if len(pattern) > MAX_LENGTH:
        raise UsageError(f"a pattern of {len(pattern)} characters", f"at most {MAX_LENGTH}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            out = re.compile(pattern, re.IGNORECASE)
            parsed = _parser().parse(pattern)
    except (re.error, OverflowError, RecursionError, MemoryError, ValueError) as error:
        raise UsageError(f"pattern {pattern!r}: {error}", "a regular expression") from None
    repeats = _count(parsed, inside=False, pattern=pattern)
    if repeats > MAX_REPEATS:
        raise _slow(pattern, f"{repeats} open-ended repeats")
    return out


def _parser() -> Any:
    # the standard library's own parser has no public name since 3.11
    from re import _parser  # type: ignore[attr-defined]

    return _parser


def _count(parsed: Any, *, inside: bool, pattern: str) -> int:
    """Open-ended repeats in a parsed pattern."""
    total = 0
    for op, argument in parsed:
        name = str(op)
        if name in _REPEATS:
            low, high, body = argument
            if high == low == 1 or (low == 0 and high == 1 and not inside):
                total += _count(body, inside=inside, pattern=pattern)  # "?" alone tries two ways
                continue
            if inside:
                raise _slow(pattern, "a repeat inside a repeat")
            total += 1 + _count(body, inside=True, pattern=pattern)
        elif name == "BRANCH":
            if inside:
                raise _slow(pattern, "an alternative inside a repeat")
            total += sum(_count(branch, inside=inside, pattern=pattern) for branch in argument[1])
        elif name == "SUBPATTERN":
            total += _count(argument[-1], inside=inside, pattern=pattern)
        elif name in ("ASSERT", "ASSERT_NOT"):
            total += _count(argument[1], inside=inside, pattern=pattern)
        elif name == "ATOMIC_GROUP":
            total += _count(argument, inside=inside, pattern=pattern)
        elif name in ("GROUPREF", "GROUPREF_EXISTS"):
            raise _slow(pattern, "a back reference")
    return total


def _slow(pattern: str, what: str) -> UsageError:
    return UsageError(f"pattern {pattern!r} has {what}", "a simpler pattern: this one could take for ever")
