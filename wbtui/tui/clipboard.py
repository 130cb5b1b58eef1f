"""Copying out of a terminal, over SSH too: the tmux buffer inside tmux, the terminal's clipboard (OSC 52) elsewhere."""

from __future__ import annotations

import asyncio
import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from textual.app import App

TMUX_WITHIN = 2.0


async def copy_text(app: App[None], text: str) -> str:
    """Copy and say where to.

    Returns:
        str: ``to the tmux buffer (prefix ] pastes)`` or ``to the terminal's clipboard (OSC 52)``.
    """
    if os.environ.get("TMUX") and shutil.which("tmux"):
        # -w passes it on to the outer terminal's clipboard where tmux may do so
        process = await asyncio.create_subprocess_exec(
            "tmux", "load-buffer", "-w", "-",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            await asyncio.wait_for(process.communicate(text.encode()), TMUX_WITHIN)
        except TimeoutError:
            process.kill()
        if process.returncode == 0:
            return "to the tmux buffer (prefix ] pastes)"
    app.copy_to_clipboard(text)
    return "to the terminal's clipboard (OSC 52)"
