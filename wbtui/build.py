"""Which code is this? A package that was updated in place keeps its version, and a service that was started before
keeps its old code: client and service compare this too, so that neither speaks of what only one of them knows.
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1)
def stamp() -> str:
    """Eight hex digits of the package's Python files, by name and content, as they were at the first call.

    Call it early in a process that lives long: later the files may be others than those that it runs.
    """
    root = Path(__file__).parent
    total = 0
    for path in sorted(root.rglob("*.py")):
        total = zlib.crc32(str(path.relative_to(root)).encode(), total)
        total = zlib.crc32(path.read_bytes(), total)
    return f"{total:08x}"
