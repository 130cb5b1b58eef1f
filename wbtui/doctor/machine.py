"""The machine: devices (asked in a process of its own), folders, cache, notes, service, settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from wbtui import paths, settings
from wbtui.doctor.check import Check
from wbtui.errors import WbtuiError

DEVICES_WITHIN = 90.0
"""Seconds for torch to load and look around (it is slow from a cold disk)."""
ASK_TORCH = """
import json, torch
out = {"torch": torch.__version__, "cuda_build": torch.version.cuda, "threads": torch.get_num_threads(), "devices": []}
if torch.cuda.is_available():
    for i in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(i)
        p = torch.cuda.get_device_properties(i)
        out["devices"].append({"name": f"cuda:{i}", "what": p.name, "free": free, "total": total,
                               "capability": f"{p.major}.{p.minor}"})
if getattr(torch.backends, "mps", None) and torch.backends.mps.is_available():
    out["devices"].append({"name": "mps", "what": "Apple GPU"})
print(json.dumps(out))
"""


def devices(command: Sequence[str] = (sys.executable, "-c", ASK_TORCH), within: float = DEVICES_WITHIN) -> list[Check]:
    """What torch can compute on, found out in a process of its own: this one never loads it."""
    try:
        done = subprocess.run(list(command), capture_output=True, text=True, timeout=within, check=False)
    except subprocess.TimeoutExpired:
        return [Check("devices", "bad", f"no answer in {within:g} s", "a GPU or driver that hangs? try `nvidia-smi`")]
    except OSError as error:
        return [Check("devices", "bad", f"cannot be asked: {error.strerror or error}")]
    try:
        data = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return [Check("devices", "bad", f"torch does not load: {last}", "pip install torch")]
    out = [
        Check("torch", "ok", f"{data['torch']}, {data['threads']} threads, CUDA build {data['cuda_build'] or 'none'}")
    ]
    for device in data["devices"]:
        memory = (
            f", {device['free'] / 2**30:.1f} of {device['total'] / 2**30:.1f} GiB free" if "total" in device else ""
        )
        out.append(Check(f"device {device['name']}", "ok", device["what"] + memory))
    if not data["devices"]:
        out.append(Check("device cpu", "note", "no GPU that torch can use: the CPU computes"))
    return out


def kernels() -> list[Check]:
    """What workers of this cache measured about products, each device once (``wbtui.compute.kernels``)."""
    out = []
    for path in sorted((paths.cache_dir() / "machine").glob("*.json")):
        try:
            data = json.loads(path.read_text())
            rates = ", ".join(f"{name} {float(rate):.0f}" for name, rate in data["gflops"].items())
            chosen = f"{data['product']}{', oneDNN' if data['onednn'] else ''}"
            threads = f", {data['threads']} threads" if data["threads"] else ""
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            out.append(Check("products", "note", f"{path}: says nothing", "measured again when needed"))
            continue
        where = path.name.partition("-")[0]
        out.append(Check(f"products {where}", "ok", f"{chosen}{threads} of {rates} GFLOP/s", "setting `product`"))
    return out


def folders() -> list[Check]:
    """Whether each folder can be written, or made."""
    out = []
    for name in ("cache_dir", "data_dir", "log_dir", "runtime_dir", "config_dir"):
        found = settings.found(name)
        place = Path(found.value)
        there = next(p for p in (place, *place.absolute().parents) if p.exists())
        good = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
        state = "ok" if good else "note" if name == "config_dir" else "bad" if name == "runtime_dir" else "warn"
        where = f"{place}" + ("" if place.exists() else " (not there yet)")
        do = "" if good else f"cannot be written; {settings.BY_NAME[name].variable} moves it"
        out.append(Check(name, state, where, do))
    return out


def cache() -> Check:
    """Products, their bytes, what is unfinished, room on the disk."""
    from wbtui.store.cache import disk_usage, list_products

    try:
        products, usage = list_products(paths.cache_dir()), disk_usage(paths.cache_dir())
    except (WbtuiError, OSError) as error:
        return Check("cache", "bad", error.line() if isinstance(error, WbtuiError) else str(error))
    partial = sum(p.state != "complete" for p in products)
    found = (
        f"{len(products)} products, {usage.products / 1e9:.2f} GB, {partial} unfinished; {usage.free / 1e9:.1f} GB free"
    )
    if usage.temporaries:
        found += f"; {usage.temporaries / 1e6:.1f} MB left over"
    if usage.free < 1e9:
        return Check("cache", "warn", found, "`wbtui cache gc --max-size 5G` makes room")
    return Check("cache", "ok", found, "`wbtui cache verify` reads every byte" if products else "")


def notes() -> Check:
    """Whether the notes are sound."""
    from wbtui.notes.store import NoteStore

    store = NoteStore(wait=1.0)
    try:
        state = store.check()
        if state == "none":
            return Check("notes", "ok", "none yet")
        counts = [counts for _, counts in store.saes()]
    except WbtuiError as error:
        return Check("notes", "bad", error.line())
    if state != "ok":
        return Check(
            "notes", "bad", f"{store.path}: {state}", "`wbtui notes export`, move it aside, `wbtui notes import`"
        )
    total = {kind: sum(c[kind] for c in counts) for kind in ("marks", "tags", "notes")}
    words = f"{total['marks']:,} marked, {total['tags']:,} tagged, {total['notes']:,} notes"
    return Check("notes", "ok", words, "`wbtui notes export -o FILE` is a backup" if counts else "")


def service() -> Check:
    """Whether one runs, of which version. None is started."""
    from wbtui import __version__
    from wbtui.service.client import Client

    try:
        with Client.connect(False, any_version=True) as client:
            status = client.status()
    except WbtuiError as error:
        return Check("service", "note", error.line())
    version = str(status.get("version"))
    if version != __version__:
        return Check("service", "warn", f"of version {version}; this is {__version__}", "`wbtui daemon restart`")
    return Check("service", "ok", f"process {status.get('pid')}, {len(status.get('workers') or [])} workers")


def configuration() -> list[Check]:
    """The settings file and the keys in it; variables that no setting has."""
    from wbtui.tui import keymap

    where = str(settings.path()) + ("" if settings.path().exists() else " (not there)")
    try:
        settings.every()
        keymap.checked(settings.keys())
        out = [Check("config.toml", "ok", where)]
    except WbtuiError as error:
        out = [Check("config.toml", "bad", error.line())]
    return out + [Check("variable", "warn", line) for line in settings.unknown_variables()]
