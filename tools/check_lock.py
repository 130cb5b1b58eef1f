"""Fail if the constraints file carries anything of the machine that made it: local versions, hosts, paths, hashes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

PIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][A-Za-z0-9.]*(post[0-9]+)?")


def main() -> int:
    """Check every line of ``constraints.txt``; print what does not belong."""
    path = Path(__file__).resolve().parent.parent / "constraints.txt"
    lines = [line.strip() for line in path.read_text().splitlines()]
    bad = [line for line in lines if line and not line.startswith("#") and not PIN.fullmatch(line)]
    for line in bad:
        print(f"constraints.txt: {line!r}; expected a plain pin such as torch==2.13.0", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
