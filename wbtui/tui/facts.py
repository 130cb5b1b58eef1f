"""What the screens ask of a feature table about one row: its state, its kind, its words, the level of the noise.

The only file of the app that knows the table's vocabulary of column names and codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wbtui import schema
from wbtui.address import is_path
from wbtui.features import classes
from wbtui.features.classes import CLASS_NAMES
from wbtui.tui.plain import ascii_on, shown_text

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable

REASONS = {
    "bad_decoder": ("not finite", "its decoder row holds NaN or infinity: nothing can be computed from it"),
    "zero_decoder": ("zero row", "its decoder row is zero: it writes nothing"),
    "bad_encoder": ("not finite", "its encoder column holds NaN or infinity: what it reads cannot be computed"),
    "zero_encoder": ("zero column", "its encoder column is zero: it reads nothing"),
    "no_reads": ("no reads", "its encoder does not read the residual stream: tokens cannot be scored against it"),
}
"""Why a row or side has no numbers: short for a cell, long for the card."""
_FLAGS = (
    ("bad_decoder", schema.FLAG_BAD_DECODER),
    ("zero_decoder", schema.FLAG_ZERO_DECODER),
    ("no_reads", schema.FLAG_NO_READS),
    ("bad_encoder", schema.FLAG_BAD_ENCODER),
    ("zero_encoder", schema.FLAG_ZERO_ENCODER),
)
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Meaning:
    """What line 1 says of the numbers."""

    definition: str
    noise: str
    mask: str


@dataclass(frozen=True)
class ShownWord:
    """A word of a list as drawn."""

    text: str
    """Safe, without leading space, spellings counted: ``London³``."""
    id: int
    z: float
    inside_null: bool


def state_of(table: FeatureTable, row: int) -> str:
    """``ready``, ``provisional`` or ``absent``."""
    if row in table.provisional:
        return "provisional"
    return "ready" if table.computed[row] else "absent"


def reason(table: FeatureTable, row: int, side: str = "writes") -> str:
    """Key of :data:`REASONS` that explains a missing side, or nothing."""
    flags = int(table.cell("flags", row))
    for name, bit in _FLAGS:
        if flags & bit and (name.endswith("decoder") == (side != "reads")):
            return name
    return ""


def class_of(table: FeatureTable, row: int, side: str = "writes") -> str:
    """coherent, single, diffuse, none; empty where it is not known."""
    code = int(table.at(f"{side}.class", row))
    return CLASS_NAMES[code] if code >= 0 else ""


def n_words(table: FeatureTable, row: int, side: str = "writes") -> int:
    """Words beyond noise."""
    return int(table.at(f"{side}.n_words", row))


def kind_text(table: FeatureTable, row: int, side: str = "writes") -> str:
    """``set 9``, ``one``, ``mix 20+``, ``none``; ``–`` where the row has no numbers, ``…`` while there is no null."""
    if reason(table, row, side):
        return "–"
    return table.kind(row, side) or "…"


def listed(table: FeatureTable, row: int, side: str, k: int) -> list[ShownWord]:
    """The first ``k`` words of a side; empty where it has no numbers."""
    out = []
    for word in table.words(row, side, k):
        many = f"({word.count})" if ascii_on() else str(word.count).translate(_SUPERSCRIPTS)
        text = shown_text(word.text) + (many if word.count > 1 else "")
        out.append(ShownWord(text, word.id, word.z, word.inside_null))
    return out


def value_of(table: FeatureTable, name: str, row: int) -> float:
    """A metric as a float, NaN where there is none."""
    return table.value(name, row)


def envelope(table: FeatureTable, side: str) -> np.ndarray:
    """The level of the noise at each rank of a side's word list (float [k_words]); NaN without a null."""
    return table.thresholds.side(side).word_z


def semantic_mask(table: FeatureTable) -> np.ndarray:
    """Which rows are semantic on the writes side (bool [n])."""
    return np.asarray(table.column("semantic.writes"), dtype=bool)


def null_values(table: FeatureTable, name: str) -> np.ndarray:
    """A metric's finite values over the random directions that set the thresholds, all kinds; empty without."""
    side, _, metric = name.partition(".")
    if not metric:
        return np.zeros(0)
    found = [sample.sorted(side, metric) for sample in table.thresholds.used]
    return np.concatenate(found) if found else np.zeros(0)


def inside_level(table: FeatureTable, side: str, metric: str) -> float:
    """The null's 99th percentile of an evidence metric (the larger over kinds); NaN without a null."""
    return float(table.thresholds.side(side).inside.get(metric, float("nan")))


def null_share(table: FeatureTable, name: str, row: int) -> str:
    """Share of random directions that reach the row's value, ``(1 + b) / (N + 1)``, as text; ``–`` without one."""
    if not np.isfinite(value_of(table, name, row)) or not table.thresholds.used:
        return "–"
    share, _ = table.null_percentile(name, row)
    return f"{share * 100:.2f} %" if np.isfinite(share) else "–"


def says(table: FeatureTable, row: int) -> str:
    """The line under the title: what the title rests on."""
    why = reason(table, row)
    if why:
        return REASONS[why][1]
    kind = class_of(table, row)
    strength = value_of(table, "writes.evidence", row)
    if not kind:
        return "the noise is not computed yet: what stands out cannot be told"
    if kind == "none":
        if table.at("unclear.writes", row):
            return "every measure of it lies inside the noise"
        return f"no word stands out · evidence {strength:.1f}, noise up to 1"
    count = n_words(table, row)
    more = "+ words" if count >= len(envelope(table, "writes")) else " word" if count == 1 else " words"
    return f"{count}{more} beyond noise · evidence {strength:.1f}, noise up to 1"


def short_name(model: str) -> str:
    """A model as line 1 names it: of a path, its last folder."""
    return model.rstrip("/").rsplit("/", 1)[-1] if is_path(model) else model


def meaning_of(table: FeatureTable) -> Meaning:
    """What line 1 says: definition, how the bars were set, what the mask took."""
    definition = table.origin.definition
    used = table.thresholds.used
    noise = f"noise: {max(sample.n for sample in used):,} directions" if used else "noise: …"
    if table.thresholds.mode != "null" or table.thresholds.fixed:
        noise = table.thresholds.line()
    if definition.mask is None:
        mask = "no mask"
    else:
        counts = table.masked_tokens("writes")
        if counts is None:
            mask = "mask …"
        else:
            about = "≈" if counts["estimated"] else ""
            mask = f"mask {about}{counts['total']:,} of {counts['of']:,} tokens"
    return Meaning(definition.name, noise, mask)


def shares_of(table: FeatureTable) -> dict[str, dict[str, float]] | None:
    """Class shares of the features, and of fresh noise by the same bars (the bars' own noise until that is there).

    None while there is no null.
    """
    codes = table.column("writes.class")
    if not table.thresholds.ready or not (codes >= 0).any():
        return None
    out = {"features": _shares(codes)}
    fresh = [s for s in table.checks if s.kind != "sign_flip"] or list(table.thresholds.used)
    bars = table.thresholds.side("writes")
    judged = [
        classes.classify(s.read("writes"), bars, table.thresholds.rule, table.thresholds.concentration)[0]
        for s in fresh
    ]
    if judged:
        out["noise"] = _shares(np.concatenate(judged))
    return out


def _shares(codes: np.ndarray) -> dict[str, float]:
    known = codes[codes >= 0]
    return {
        name: float(np.mean(known == code)) if len(known) else float("nan") for code, name in enumerate(CLASS_NAMES)
    }
