"""The command line: ``wbtui [ADDRESS]`` opens the app, subcommands do everything else without one.

stdout is data, stderr is words. Exit codes: 0 done, 1 work failed, 2 usage, 3 service unreachable, 4 timed out,
130 interrupted.
"""

from __future__ import annotations

import importlib
import io
import sys

import click

from wbtui import __version__, settings
from wbtui.display import safe_lines
from wbtui.start import COMMANDS, MODULES, guarded


class AddressGroup(click.Group):
    """A group whose first word may be an address instead of a command; commands win."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command, its module imported."""
        if cmd_name in COMMANDS:
            importlib.import_module(f"wbtui.cli.{COMMANDS[cmd_name]}")
        return super().get_command(ctx, cmd_name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command."""
        _register()
        return super().list_commands(ctx)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if any(word in ("--help", "-h", "--version") for word in args[:1]):
            return super().parse_args(ctx, args)
        # options before the command are its own: `wbtui --ascii demo` is `wbtui demo --ascii`
        place = 0
        while place < len(args) and args[place].startswith("-") and args[place] != "--":
            place += 2 if args[place] in VALUED else 1
        front, rest = args[:place], args[place:]
        if rest and rest[0] in COMMANDS:
            return super().parse_args(ctx, [*rest, *front])
        return super().parse_args(ctx, ["open", *front, *rest])


VALUED = ("--theme", "--definition", "--device")
"""Options with a value that may stand before a command."""


@click.group(
    cls=AddressGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="""What SAE features do, read from the weights alone.

    \b
    wbtui                      choose a model and an SAE
    wbtui demo                 the built-in trained demo
    wbtui ADDRESS              MODEL[@SAE[#FEATURE]], for example demo@L3#120

    MODEL is `demo`, a folder (./path) or a Hub id in the local Hub cache; SAE is a short name that
    `wbtui saes MODEL` lists, or a folder.""",
)
@click.version_option(__version__, prog_name="wbtui")
def cli() -> None:
    """The root group; its help text is above."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    settings.clear_flags()
    code = guarded(lambda: _run(argv))
    if argv is None:
        sys.exit(code)
    return code


def _run(argv: list[str] | None) -> int:
    try:
        result = cli.main(args=argv, prog_name="wbtui", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.Abort:
        raise KeyboardInterrupt from None
    except click.ClickException as error:
        words = io.StringIO()
        error.show(words)  # it repeats what was typed
        print(safe_lines(words.getvalue().rstrip("\n")), file=sys.stderr)
        return error.exit_code


def _register() -> None:
    """Import every command's module (each keeps heavy imports inside its functions)."""
    for module in MODULES:
        importlib.import_module(f"wbtui.cli.{module}")
