"""Copying out of a terminal, over SSH too: the tmux buffer inside tmux, the terminal's clipboard (OSC 52), or a file.

A terminal never says whether it took an OSC 52 sequence, and many drop long ones: beyond a cap the text goes to a file.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from wbtui import paths, settings
from wbtui.errors import StoreError

if TYPE_CHECKING:
    from textual.app import App

TMUX_WITHIN = 2.0
FILE = "copied.txt"


def route_of(environ: Mapping[str, str], wish: str) -> str:
    """Which way a copy takes: ``tmux``, ``osc52`` or ``file``; ``wish`` is the setting ``copy``."""
    inside = bool(environ.get("TMUX")) and shutil.which("tmux", path=environ.get("PATH")) is not None
    if wish in ("auto", "tmux"):
        return "tmux" if inside else "osc52"
    return wish


async def copy_text(app: App[None], text: str) -> str:
    """Copy and say where to.

    Returns:
        str: ``to the tmux buffer …``, ``to the terminal's clipboard (OSC 52)`` or ``to FILE …``.

    Raises:
        StoreError: it can go nowhere.
    """
    route = route_of(os.environ, str(settings.get("copy")))
    if route == "tmux":
        if await _to_tmux(text):
            return "to the tmux buffer (prefix ] pastes)"
        route = "osc52"
    if route == "osc52":
        size = len(b64encode(text.encode("utf-8", "replace")))
        if size <= int(settings.get("copy_bytes")):
            app.copy_to_clipboard(text)
            return "to the terminal's clipboard (OSC 52)"
        return f"to {to_file(text)}: {size:,} bytes are too many for the terminal"
    return f"to {to_file(text)}"


async def _to_tmux(text: str) -> bool:
    """Into tmux's buffer, and with ``-w`` on to the outer terminal's clipboard where tmux may do so."""
    try:
        process = await asyncio.create_subprocess_exec(
            "tmux", "load-buffer", "-w", "-",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
    except OSError:
        return False
    try:
        await asyncio.wait_for(process.communicate(text.encode("utf-8", "replace")), TMUX_WITHIN)
    except TimeoutError:
        process.kill()
        await process.wait()
    return process.returncode == 0


def to_file(text: str) -> Path:
    """The text in a file of the user's own, over the copy before.

    Raises:
        StoreError: nowhere can be written.
    """
    for folder in (paths.data_dir(), Path(tempfile.gettempdir()) / f"wbtui-{os.getuid()}"):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            place = folder / FILE
            place.unlink(missing_ok=True)
            fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(fd, "w", encoding="utf-8", errors="replace") as file:
                file.write(text)
            return place
        except OSError:
            continue
    raise StoreError("a copy can be written nowhere", "a folder that can be written", "WBTUI_DATA_DIR names one")
