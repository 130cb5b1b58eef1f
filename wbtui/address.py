"""One address string for command line, palette, clipboard and export: ``MODEL[@SAE[#FEATURE]]``.

Split at the last ``#`` that is followed by digits only, then at the last ``@``. ``%40`` and ``%23`` (and ``%25``)
escape ``@``, ``#`` and ``%`` inside a part; what cannot be printed (a control, a bidi override, a byte that is no
UTF-8: names of folders can hold them all) is written as ``%`` and two digits a byte, so that an address can always be
shown and copied. A path begins with ``/``, ``./``, ``../`` or ``~``. A Hub revision is ``org/name:rev``. A page of
Neuronpedia (``neuronpedia.org/MODEL/SOURCE/INDEX``) is an address too: of the SAE here that it shows
(:mod:`wbtui.catalog.neuronpedia`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from wbtui.errors import UsageError

_FEATURE = re.compile(r"#([0-9]+)$", re.ASCII)
SHOWN = 200
"""Characters of what was typed that an error shows."""
_LIKE = "an address like demo@L3#120 (MODEL[@SAE[#FEATURE]])"


@dataclass(frozen=True)
class Address:
    """A place: a model, an SAE of it, a feature of that; each optional from the right."""

    model: str
    sae: str | None = None
    feature: int | None = None

    def __str__(self) -> str:
        text = _escape(self.model)
        if self.sae is not None:
            text += "@" + _escape(self.sae)
            if self.feature is not None:
                text += f"#{self.feature}"
        return text


def parse_address(text: str) -> Address:
    """Parse an address, or a page of Neuronpedia.

    Raises:
        UsageError: empty, a part missing, a feature without an SAE, or a bad escape; a page of something that is not
            on this disk, with the command that fetches it.
    """
    whole = text.strip()
    if not whole:
        raise UsageError("an empty address", _LIKE)
    if any(ord(c) < 32 or 127 <= ord(c) < 160 for c in whole) or "%00" in whole:
        do = "write them as % and two digits, as in %1b"
        raise UsageError(f"address {_shown(whole)} has control characters", _LIKE, do)
    if "neuronpedia.org" in whole.casefold():
        from wbtui.catalog import neuronpedia  # the registry is read for this alone

        if neuronpedia.is_page(whole):
            return neuronpedia.address_of(whole)
    feature: int | None = None
    rest = whole
    match = _FEATURE.search(whole)
    if match:
        if len(match.group(1)) > 12:
            raise UsageError(f"feature number {match.group(1)[:20]}…", "at most 12 digits")
        feature = int(match.group(1))
        rest = whole[: match.start()]
    elif whole.endswith("#"):
        raise UsageError(f"address {_shown(whole)} ends in '#'", "a feature number after '#'")
    model, at, sae = rest.rpartition("@")
    if not at:
        model, sae = rest, ""
    if not model or (at and not sae):
        raise UsageError(f"address {_shown(whole)}: {'no SAE after @' if model else 'no model'}", _LIKE)
    if feature is not None and not at:
        raise UsageError(f"address {_shown(whole)}: a feature without an SAE", _LIKE, "name the SAE: MODEL@SAE#FEATURE")
    return Address(_unescape(model), _unescape(sae) if at else None, feature)


def is_path(name: str) -> bool:
    """Whether a model or SAE name is a path rather than a short name or a Hub id."""
    return name.startswith(("/", "./", "../", "~")) or name in (".", "..")


def _shown(text: str) -> str:
    """What was typed; of what was pasted by mistake the beginning."""
    return repr(text) if len(text) <= SHOWN else repr(text[:SHOWN]) + "…"


def _escape(part: str) -> str:
    part = part.replace("%", "%25").replace("@", "%40").replace("#", "%23")
    if part.isprintable():
        return part
    return "".join(c if c.isprintable() else "".join(f"%{byte:02x}" for byte in _bytes(c)) for c in part)


def _bytes(char: str) -> bytes:
    """UTF-8; a byte that was none (``surrogateescape``, as in names of files) is itself again."""
    return char.encode("utf-8", "surrogateescape" if "\udc80" <= char <= "\udcff" else "surrogatepass")


def _unescape(part: str) -> str:
    def some(match: re.Match[str]) -> str:
        return bytes.fromhex(match.group(0).replace("%", "")).decode("utf-8", "surrogateescape")

    return re.sub(r"(?:%(?:40|23|25|[01][0-9a-fA-F]|7[fF]|[89a-fA-F][0-9a-fA-F]))+", some, part)
