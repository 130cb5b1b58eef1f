"""``wbtui config``: what is set, and by whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from wbtui import settings
from wbtui.cli import cli
from wbtui.cli.common import print_json, print_path, print_table, say
from wbtui.cli.options import app_options, definition_option


@cli.group()
def config() -> None:
    """Show settings and where each comes from."""


@config.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@app_options
@definition_option
def show(as_json: bool, definition: str) -> None:
    """List every setting with its value and its source: default, config.toml, a variable, or a flag."""
    from wbtui.tui import keymap

    every = settings.every()
    user_keys = settings.keys()
    keymap.checked(user_keys)
    strangers = settings.unknown_variables()
    if as_json:
        print_json(
            {
                "file": str(settings.path()),
                "exists": settings.path().exists(),
                "settings": {f.name: {"value": plain(f.value), "source": f.source} for f in every},
                "keys": {name: list(names) for name, names in user_keys.items()},
                "unknown_variables": strangers,
            }
        )
        return
    rows = [[f.name, shown(f.value), f.source, settings.BY_NAME[f.name].help] for f in every]
    rows += [[f"keys.{name}", " ".join(names), settings.FILE, ""] for name, names in user_keys.items()]
    print_table(["SETTING", "value", "source", "what it is"], rows)
    there = "" if settings.path().exists() else " (not there)"
    say(f"\nfile: {settings.path()}{there}", err=True)
    for line in strangers:
        say(f"wbtui: {line}", err=True)


@config.command()
def path() -> None:
    """Print where config.toml is looked for."""
    print_path(settings.path())


def plain(value: Any) -> Any:
    """A value as JSON data."""
    if isinstance(value, tuple):
        return [plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def shown(value: Any) -> str:
    """A value as config.toml would write it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[" + ", ".join(f'"{v}"' for v in value) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)
