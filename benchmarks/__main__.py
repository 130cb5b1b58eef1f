"""``make bench``: every benchmark in turn, each in its own process; all numbers go to ``benchmarks/results.json``.

Figures are ratios to a floor or a peer that is measured in the same run; a shared machine moves the seconds, hardly the
ratios. The run is compared with the recorded one and fails where a ratio is more than twice its record (``--keep``
leaves the record as it is). Give names (``python -m benchmarks e1 app``) to run a few; ``million`` runs by name alone.
One name may have options of its own behind it (``python -m benchmarks explorer --features 131072``): such a run is
shown and not recorded.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.compare import PICTURE, compare, picture

BENCHMARKS = {
    "e1": ["--features", "256", "--repeat", "5"],
    "attention": ["--shrink", "2", "--repeat", "5"],
    "peers": [],
    "exact": ["--features", "512"],
    "growth": [],
    "dictionary": [],
    "match": [],
    "questions": [],
    "features_table": [],
    "app": [],
    "heads": [],
    "explorer": [],
    "link": [],
    "service": ["--dask"],
}
BY_NAME = {"million": [], "loading": ["--full"]}
"""Long ones: never run unless named."""
RESULTS = Path(__file__).with_name("results.json")


def main(names: list[str]) -> int:
    """Run the named benchmarks (all by default); returns 1 if one fails."""
    keep = "--keep" in names
    names = [n for n in names if n != "--keep"]
    known = {**BENCHMARKS, **BY_NAME}
    own = names[1:] if names and names[0] in known and names[1:2] and names[1].startswith("-") else []
    if own:
        return subprocess.run([sys.executable, "-m", f"benchmarks.{names[0]}", *own], check=False).returncode
    unknown = [n for n in names if n not in known]
    if unknown:
        print(f"benchmarks: unknown {unknown}; expected {', '.join(known)}", file=sys.stderr)
        return 2
    recorded = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    results = dict(recorded)
    failed = 0
    for name in names or list(BENCHMARKS):
        print(f"== {name}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out.json"
            command = [sys.executable, "-m", f"benchmarks.{name}", *known[name], "--json", str(out)]
            code = subprocess.run(command, check=False).returncode
            failed += code != 0
            if out.is_file():
                results[name] = {"measured": time.strftime("%Y-%m-%d"), "results": json.loads(out.read_text())}
    lines, slower = compare(recorded, results)
    print("== against the recorded run", *lines or ["nothing moved by more than a half"], sep="\n")
    if not keep:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        PICTURE.write_text(picture(results))
        print(f"written to {RESULTS.name} and {PICTURE.name}")
    return 1 if failed or slower else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
