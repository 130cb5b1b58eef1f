"""Write the generated tables of README.md anew: ``python tools/readme_tables.py``.

A table stands between ``<!-- NAME: made by tools/readme_tables.py -->`` and ``<!-- NAME: end -->``; a test holds the
README against what the code's own registries say.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from wbtui.catalog import formats, support
from wbtui.tui import keymap

README = Path(__file__).resolve().parent.parent / "README.md"

TABLES: dict[str, Callable[[], str]] = {"models": support.table, "SAE formats": formats.table, "keys": keymap.markdown}


def filled(text: str) -> str:
    """A README's text with every generated table as it should be.

    Raises:
        ValueError: a table's marks are missing.
    """
    for name, make in TABLES.items():
        start, end = f"<!-- {name}: made by tools/readme_tables.py -->", f"<!-- {name}: end -->"
        before, found, rest = text.partition(start)
        _, ended, after = rest.partition(end)
        if not found or not ended:
            raise ValueError(f"README.md: no place for the table {name!r}")
        text = f"{before}{start}\n{make()}\n{end}{after}"
    return text


if __name__ == "__main__":
    README.write_text(filled(README.read_text(encoding="utf-8")), encoding="utf-8")
