"""Options that set settings: what is typed wins over variables and ``config.toml``."""

from __future__ import annotations

from typing import Any

import click

from wbtui import settings


def _sets(name: str, flag: str, value: Any = None) -> Any:
    """A callback that makes an option a setting's flag; ``value`` is what a switch stands for."""

    def take(ctx: click.Context, parameter: click.Parameter, given: Any) -> Any:
        if given not in (None, False):
            settings.set_flag(name, given if value is None else value, flag)
        return settings.get(name)

    return take


def definition_option(command: Any) -> Any:
    """``--definition NAME``, else the setting ``definition``."""
    return click.option(
        "--definition",
        callback=_sets("definition", "--definition"),
        help="Named definition of the numbers: folded (default), neuronpedia, neuronpedia-folded.",
    )(command)


SWITCHES: tuple[tuple[str, str, Any, str], ...] = (
    ("--ascii", "ascii", True, "No glyph beyond ASCII."),
    ("--no-mouse", "mouse", False, "Leave the mouse to the terminal, so that its own selection works."),
    ("--fresh", "resume", False, "Do not go on where the last session was."),
)


def app_options(command: Any) -> Any:
    """``--theme``, ``--ascii``, ``--no-mouse``, ``--fresh``: how the app looks and begins."""
    for flag, name, value, words in reversed(SWITCHES):
        command = click.option(flag, is_flag=True, expose_value=False, callback=_sets(name, flag, value), help=words)(
            command
        )
    return click.option(
        "--theme",
        expose_value=False,
        callback=_sets("theme", "--theme"),
        help="auto, dark, light, ansi (the terminal's own colours) or mono.",
    )(command)
