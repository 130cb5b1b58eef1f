"""Row lengths of dictionaries, kept on disk: what the first question of a service would otherwise take on the way.

One small file a side under ``<cache>/lengths``: 9 bytes a feature, checked when read. Only a memory, as fingerprints
are (:mod:`wbtui.store.fingerprints`): absent, damaged, or of files that are others now, the lengths are taken again.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from wbtui.analysis.scores import Lengths
from wbtui.catalog.saes import SaeInfo
from wbtui.errors import WbtuiError
from wbtui.store import io, places
from wbtui.store.columns import read_verified, write_columns
from wbtui.store.fingerprints import SETTLED_NS
from wbtui.store.keys import digest

METHOD = 1
"""Rises when the numbers change."""


def place(cache: Path, sae: SaeInfo, side: str, centre: bool, model: Any) -> Path:
    """Where an SAE's lengths are kept while its files stay as they are.

    Args:
        side: ``writes`` or ``reads``. centre: of rows without their mean. model: what tells its weights from others.
    """
    key = digest([METHOD, io.stamps(sae.files), sae.places, sae.conventions, sae.site, sae.layer, side, centre, model])
    return cache / places.LENGTHS / f"{key[:32]}.safetensors"


def remembered(path: Path, n: int) -> Lengths | None:
    """What is kept there of ``n`` rows; None where nothing usable is."""
    try:
        header, data = read_verified(path)
        found = {}
        for name, dtype in (("norms", np.dtype("<f8")), ("usable", np.dtype(bool))):
            entry = header.tensors[name]
            begin = entry.begin - header.data_start
            found[name] = np.frombuffer(data[begin : begin + n * dtype.itemsize], dtype)
            if entry.shape != (n,) or len(found[name]) != n:
                return None
        trace, trace2 = (float(header.metadata[name]) for name in ("trace", "trace2"))
    except (WbtuiError, OSError, KeyError, ValueError):
        return None
    if not (math.isfinite(trace) and math.isfinite(trace2) and trace > 0 and found["usable"].any()):
        return None
    return Lengths(found["norms"], found["usable"], trace, trace2)


def remember(some: dict[Path, tuple[Lengths, SaeInfo]]) -> threading.Thread:
    """Write lengths down beside what goes on: a disk that syncs slowly keeps nobody waiting."""
    thread = threading.Thread(target=_write, args=(some,), name="wbtui-lengths")
    thread.start()
    return thread


def _write(some: dict[Path, tuple[Lengths, SaeInfo]]) -> None:
    for path, (lengths, sae) in some.items():
        with contextlib.suppress(WbtuiError, OSError):  # a cache that cannot be written only costs time
            if any(time.time_ns() - os.stat(file).st_mtime_ns < SETTLED_NS for file in sae.files):
                continue  # a second change within one tick of its clock would go unseen
            io.make_folders(path.parent)
            arrays = {"norms": lengths.norms, "usable": lengths.usable}
            facts = {"trace": repr(lengths.trace), "trace2": repr(lengths.trace2)}
            write_columns(path, arrays, facts | {places.LENGTHS_OF: json.dumps(io.stamps(sae.files))})
