"""Where wbtui keeps things. Every place is a setting: ``config.toml`` or an environment variable moves it."""

from __future__ import annotations

import socket
from pathlib import Path

from wbtui import settings


def cache_dir() -> Path:
    """The product cache (``WBTUI_CACHE_DIR``). Not created here."""
    return Path(settings.get("cache_dir"))


def data_dir() -> Path:
    """Bookmarks, session, settings of the user's own (``WBTUI_DATA_DIR``). Not a cache."""
    return Path(settings.get("data_dir"))


def config_dir() -> Path:
    """``config.toml`` (``WBTUI_CONFIG_DIR``)."""
    return Path(settings.get("config_dir"))


def log_dir() -> Path:
    """Logs of the service (``WBTUI_LOG_DIR``)."""
    return Path(settings.get("log_dir"))


def runtime_dir() -> Path:
    """Folder of the service's socket and lock (``WBTUI_RUNTIME_DIR``).

    Never in a home, which may be on NFS, nor in ``XDG_RUNTIME_DIR``, which goes at the last logout; and short, for a
    socket's path is limited to about 104 bytes.
    """
    return Path(settings.get("runtime_dir"))


def socket_path() -> Path:
    """The service's socket: one per user and host."""
    host = socket.gethostname().split(".")[0][:32] or "localhost"
    return runtime_dir() / f"{host}.sock"
