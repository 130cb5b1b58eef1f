"""``make bench``: every benchmark in turn, each in its own process; all numbers go to ``benchmarks/results.json``.

Figures are ratios to a floor or a peer that is measured in the same run; a shared machine moves the seconds, hardly the
ratios. Give names (``python -m benchmarks e1 app``) to run a few.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BENCHMARKS = {
    "e1": ["--features", "256", "--repeat", "3"],
    "attention": ["--shrink", "2", "--repeat", "3"],
    "features_table": [],
    "app": [],
}
RESULTS = Path(__file__).with_name("results.json")


def main(names: list[str]) -> int:
    """Run the named benchmarks (all by default); returns 1 if one fails."""
    unknown = [n for n in names if n not in BENCHMARKS]
    if unknown:
        print(f"benchmarks: unknown {unknown}; expected {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    failed = 0
    for name in names or list(BENCHMARKS):
        print(f"== {name}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out.json"
            command = [sys.executable, "-m", f"benchmarks.{name}", *BENCHMARKS[name], "--json", str(out)]
            code = subprocess.run(command, check=False).returncode
            failed += code != 0
            if out.is_file():
                results[name] = {"measured": time.strftime("%Y-%m-%d"), "results": json.loads(out.read_text())}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(f"written to {RESULTS.name}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
