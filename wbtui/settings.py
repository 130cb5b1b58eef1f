"""Every setting once: ``config.toml``, then ``WBTUI_*`` variables, then flags, in rising force.

A setting's name is its key in ``config.toml`` and, in capitals behind ``WBTUI_``, its variable: ``cache_dir`` is
``WBTUI_CACHE_DIR``. Unknown keys and values that mean nothing are errors that name the file and the nearest that would.
The file is read again when it changes; variables are read at each asking.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from wbtui.errors import UsageError

FILE = "config.toml"
PREFIX = "WBTUI_"


@dataclass(frozen=True)
class Setting:
    """One setting. ``kind``: text, choice, yes, whole, number, place, places, words."""

    name: str
    kind: str
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    in_file: bool = True
    """False for what has to be known before the file can be found, or serves one run only."""
    least: float = 0.0

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return PREFIX + self.name.upper()


DEFINITION_NAMES = ("folded", "neuronpedia", "neuronpedia-folded")
PRODUCTS = ("auto", "fp32", "tf32", "bf16", "fp16")
THEMES = ("auto", "dark", "light", "ansi", "mono")
COPY_ROUTES = ("auto", "tmux", "osc52", "file")


def over_ssh() -> bool:
    """Whether the terminal is at the other end of an SSH line, as the environment says."""
    return bool(os.environ.get("SSH_CONNECTION") or os.environ.get("SSH_TTY"))


SETTINGS: tuple[Setting, ...] = (
    Setting("theme", "choice", "auto", "colours: by the terminal, dark, light, its own (ansi), or none", THEMES),
    Setting("ascii", "yes", False, "no glyph beyond ASCII"),
    Setting("mouse", "yes", True, "the app takes the mouse; no: the terminal's own selection works"),
    Setting(
        "line_kbit",
        "number",
        lambda: 1000.0 if over_ssh() else 0.0,
        "kilobits a second that the way to the terminal carries: frames keep to it (0: no limit; over SSH 1000)",
    ),
    Setting("resume", "yes", True, "without an address, go on where the last session was"),
    Setting("sort", "words", (), "first order of a table, as metrics; -NAME falls (empty: most readable first)"),
    Setting("columns", "words", (), "columns of a table (empty: those that fit)"),
    Setting("copy", "choice", "auto", "where copies go: tmux inside tmux, else the terminal (OSC 52)", COPY_ROUTES),
    Setting("copy_bytes", "whole", 74_994, "bytes up to which a terminal is asked to copy; more goes to a file"),
    Setting("definition", "choice", "folded", "definition of the numbers", DEFINITION_NAMES),
    Setting("device", "words", ("auto",), "devices of the service: auto, cpu, cuda, cuda:N, mps, all; one worker each"),
    Setting("tile", "whole", 256, "feature rows in one tile, a multiple of 16", least=1),
    Setting("product", "choice", "auto", "bits of the big product; lists are those of fp32 in all", PRODUCTS),
    Setting("idle_unload", "number", 600.0, "seconds without work until weights leave the memory"),
    Setting("idle_exit", "number", 3600.0, "seconds without work and clients until the service ends"),
    Setting("heartbeat", "number", 900.0, "seconds without progress until a worker counts as stuck"),
    Setting("resident_gb", "number", 16.0, "gigabytes of weights that a worker keeps"),
    Setting(
        "cache_gb", "number", 0.0, "gigabytes that products may take; the service then evicts what was used longest ago"
    ),
    Setting("model_roots", "places", (), "folders of model folders"),
    Setting("sae_roots", "places", (), "folders of SAE folders"),
    Setting("offline", "yes", False, "ask the Hub for nothing, as HF_HUB_OFFLINE=1 does"),
    Setting("cache_dir", "place", lambda: platformdirs.user_cache_path("wbtui"), "the product cache"),
    Setting("data_dir", "place", lambda: platformdirs.user_data_path("wbtui"), "marks, tags, notes, the last session"),
    Setting("log_dir", "place", lambda: platformdirs.user_log_path("wbtui"), "logs of the service"),
    Setting("runtime_dir", "place", lambda: Path(f"/var/tmp/wbtui-{os.getuid()}"), "socket and lock of the service"),
    Setting(
        "config_dir", "place", lambda: platformdirs.user_config_path("wbtui"), "folder of config.toml", in_file=False
    ),
    Setting("debug", "yes", False, "show tracebacks", in_file=False),
)
BY_NAME = {setting.name: setting for setting in SETTINGS}
TABLES = ("keys",)
_YES = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


@dataclass(frozen=True)
class Found:
    """A setting's value and who set it."""

    name: str
    value: Any
    source: str
    """``default``, ``config.toml``, a variable's name, or ``--flag``."""


_flags: dict[str, tuple[Any, str]] = {}
_read: tuple[tuple[Any, ...], dict[str, Any], dict[str, tuple[str, ...]]] = ((), {}, {})


def get(name: str) -> Any:
    """A setting's value: a flag's, a variable's, the file's, or the default.

    Raises:
        UsageError: the variable or the file holds something that means nothing.
    """
    return found(name).value


def found(name: str) -> Found:
    """A setting's value with its source; see :func:`get`."""
    setting = BY_NAME[name]
    if name in _flags:
        value, flag = _flags[name]
        return Found(name, value, flag)
    text = os.environ.get(setting.variable)
    if text:
        return Found(name, _from_text(setting, text, f"{setting.variable}={text!r}"), setting.variable)
    if setting.in_file:
        values, _ = _file()
        if name in values:
            return Found(name, values[name], FILE)
    return Found(name, setting.default() if callable(setting.default) else setting.default, "default")


def every() -> list[Found]:
    """All settings, in the order of the table."""
    return [found(setting.name) for setting in SETTINGS]


def keys() -> dict[str, tuple[str, ...]]:
    """The user's own keys: binding id -> names of keys, from ``[keys]`` (their ids are checked by the key map)."""
    return dict(_file()[1])


def set_flag(name: str, value: Any, flag: str) -> None:
    """What was typed on the command line, until :func:`clear_flags`."""
    setting = BY_NAME[name]
    _flags[name] = (_from_text(setting, value, f"{flag} {value}") if isinstance(value, str) else value, flag)


def clear_flags() -> None:
    """Forget the flags of a command that is over."""
    _flags.clear()


def path() -> Path:
    """Where the file is looked for."""
    return Path(get("config_dir")) / FILE


def unknown_variables() -> list[str]:
    """``WBTUI_*`` variables that no setting has, each with the nearest that one has: for people to read."""
    known = {setting.variable for setting in SETTINGS}
    out = []
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in known:
            near = nearest(name, known)
            out.append(f"{name} is no setting" + (f"; nearest: {near}" if near else ""))
    return out


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that looks most like ``name``; empty where none does."""
    import difflib  # for mistakes only: this module is on the way of every start

    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return match[0] if match else ""


# -- the file ----------------------------------------------------------------------------------------------------------


def _file() -> tuple[dict[str, Any], dict[str, tuple[str, ...]]]:
    """Values and keys of the file, checked; empty without one."""
    global _read
    place = path()
    try:
        stat = place.stat()
    except OSError:
        return {}, {}
    stamp = (str(place), stat.st_mtime_ns, stat.st_size, stat.st_ino)
    if _read[0] != stamp:
        _read = (stamp, *_parse(place))
    return _read[1], _read[2]


def _parse(place: Path) -> tuple[dict[str, Any], dict[str, tuple[str, ...]]]:
    import tomllib

    try:
        data = tomllib.loads(place.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{place}: {error.strerror or error}", "a file that can be read") from None
    except ValueError as error:  # TOML or UTF-8
        raise UsageError(f"{place}: {error}", "a TOML file") from None
    values: dict[str, Any] = {}
    user_keys: dict[str, tuple[str, ...]] = {}
    in_file = [setting.name for setting in SETTINGS if setting.in_file]
    for name, value in data.items():
        if name == "keys":
            user_keys = _parse_keys(place, value)
        elif name in in_file:
            values[name] = _from_toml(BY_NAME[name], value, place.parent, f"{place}: {name}")
        elif name in BY_NAME:
            raise UsageError(f"{place}: {name}", f"the variable {BY_NAME[name].variable} for it")
        else:
            near = nearest(name, [*in_file, *TABLES])
            raise UsageError(
                f"{place}: unknown key {name!r}",
                f"{near!r}" if near else "one of " + ", ".join([*in_file, *TABLES]),
                "`wbtui config show` lists all",
            )
    return values, user_keys


def _parse_keys(place: Path, table: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(table, Mapping):
        raise UsageError(f"{place}: keys = {table!r}", "a table [keys] of id = key or [keys]")
    out: dict[str, tuple[str, ...]] = {}
    for name, value in table.items():
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not names or not all(isinstance(key, str) and key for key in names):
            raise UsageError(f"{place}: keys.{name} = {value!r}", "a key or a list of keys, as texts")
        out[name] = tuple(names)
    return out


def _from_toml(setting: Setting, value: Any, beside: Path, where: str) -> Any:
    """A checked value; relative folders count from the file's own, for the service works elsewhere."""
    if setting.kind == "yes" and isinstance(value, bool):
        return value
    if setting.kind in ("whole", "number") and isinstance(value, int | float) and not isinstance(value, bool):
        return _from_text(setting, str(value), f"{where} = {value}")
    if setting.kind in ("places", "words") and isinstance(value, list) and all(isinstance(v, str) for v in value):
        return tuple(beside / Path(v).expanduser() if setting.kind == "places" else v for v in value)
    if isinstance(value, str) and setting.kind not in ("yes", "whole", "number"):
        made = _from_text(setting, value, f"{where} = {value!r}")
        if setting.kind == "places":
            return tuple(beside / place for place in made)
        return beside / made if setting.kind == "place" else made
    raise UsageError(f"{where} = {value!r}", _expected(setting))


def _from_text(setting: Setting, text: str, shown: str) -> Any:
    """A value out of a variable, a flag or the file."""
    text = text.strip()
    kind = setting.kind
    try:
        if kind == "yes":
            return _YES[text.casefold()]
        if kind in ("whole", "number"):
            number = int(text) if kind == "whole" else float(text)
            if not setting.least <= number < float("inf"):
                raise ValueError
            return number
    except (KeyError, ValueError):
        raise UsageError(shown, _expected(setting)) from None
    if kind == "choice" and text not in setting.choices:
        near = nearest(text, setting.choices)
        raise UsageError(shown, _expected(setting), f"nearest: {near}" if near else "")
    if kind == "place":
        return Path(text).expanduser()
    if kind == "places":
        return tuple(Path(part).expanduser() for part in text.split(os.pathsep) if part)
    if kind == "words":
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return text


def _expected(setting: Setting) -> str:
    least = f", {setting.least:g} or more"
    return {
        "yes": "yes or no (in config.toml: true or false)",
        "whole": "a whole number (int)" + least,
        "number": "a number (float)" + least,
        "choice": "one of " + ", ".join(setting.choices),
        "place": "a folder",
        "places": "folders: a list, or one text separated as in PATH",
        "words": "a list, or one text separated by commas",
    }.get(setting.kind, "a text")
