"""The service's log: a file of bounded size, and what people are shown of it."""

from __future__ import annotations

import logging
import logging.handlers
from pathlib import Path

from wbtui import paths
from wbtui.display import safe_lines

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
    for handler in handlers:
        handler.setFormatter(Plain("%(asctime)s %(process)d %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)


class Plain(logging.Formatter):
    """Records name folders and repeat errors: what is logged can be printed by any pager."""

    def format(self, record: logging.LogRecord) -> str:
        """The lines of a record, safe to print."""
        return safe_lines(super().format(record))
