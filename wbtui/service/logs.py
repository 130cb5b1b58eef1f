"""The service's log: a file of bounded size, and what people are shown of it."""

from __future__ import annotations

import logging
import logging.handlers
from pathlib import Path

from wbtui import paths

LOG_BYTES = 1 << 20
LOG_FILES = 3


def path() -> Path:
    """The service's log."""
    return paths.log_dir() / "daemon.log"


def set_up(foreground: bool) -> None:
    """Log to a file of bounded size, and to the terminal in the foreground."""
    place = path()
    place.parent.mkdir(parents=True, exist_ok=True)
    handlers: list[logging.Handler] = [
        logging.handlers.RotatingFileHandler(place, maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8")
    ]
    if foreground:
        handlers.append(logging.StreamHandler())
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(message)s", handlers=handlers, force=True
    )
