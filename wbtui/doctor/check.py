"""One thing that was looked at."""

from __future__ import annotations

from dataclasses import dataclass

STATES = ("ok", "note", "warn", "bad")


@dataclass(frozen=True)
class Check:
    """What was found. ``state``: ok, note (nothing to do), warn (works, could be better), bad (does not work)."""

    name: str
    state: str
    found: str
    do: str = ""
