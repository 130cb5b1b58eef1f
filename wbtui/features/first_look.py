"""A first look at a feature in words: its tokens, before anything is kept or judged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wbtui.display import word_text

SHOWN = 10
NOTE = "a first look: no noise to judge it by, no token mask, nothing kept"


def lines(address: str, row: Mapping[str, Any]) -> list[str]:
    """What ``wbtui show --now`` prints.

    Args:
        address: the feature's.
        row: a row with ``texts`` (:meth:`wbtui.service.client.Client.row` of a first look).
    """
    out = [address]
    for title, side, name in (("writes", "writes", "top"), ("against", "writes", "bottom"), ("reads", "reads", "top")):
        named = tokens(row, side, name)
        out.append(f"  {title:8}" + ("–" if not named else "  ".join(f"{word_text(t)} {v:+.2f}" for t, v in named)))
    z, deficit = (row.get(f"writes.{name}") for name in ("z_max", "delta_h"))
    if z is not None and deficit is not None:
        out.append(f"  z_max {z:.2f}  delta_h {deficit:.2f}")
    return [*out, f"  {NOTE}"]


def tokens(row: Mapping[str, Any], side: str, name: str) -> list[tuple[str, float]]:
    """Texts (UNSAFE to print) and values of a list, best first; none of a side that is absent."""
    ids, values = row.get(f"{side}.{name}_ids") or (), row.get(f"{side}.{name}_values") or ()
    texts = row.get("texts") or {}
    pairs = zip(ids[:SHOWN], values[:SHOWN], strict=True)
    return [(str(texts.get(str(int(i)), f"#{int(i)}")), float(v)) for i, v in pairs if i is not None and i >= 0]
