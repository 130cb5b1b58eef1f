"""The command line: ``wbtui [ADDRESS]`` opens the app, subcommands do everything else without one.

stdout is data, stderr is words. Exit codes: 0 done, 1 work failed, 2 usage, 3 service unreachable, 4 timed out,
130 interrupted.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
import traceback

import click

from wbtui import __version__, paths, settings
from wbtui.display import safe_lines
from wbtui.errors import WbtuiError

MODULES = {
    "ask": ("edges", "find", "flow"), "cache": ("cache",), "check": ("check",), "compute": ("compute",),
    "config": ("config",), "daemon": ("daemon",), "doctor": ("doctor",), "download": ("download", "releases"),
    "export": ("export",), "labels": ("labels",), "listing": ("keys", "models", "saes"), "match": ("match",),
    "notes": ("notes",), "open": ("demo", "open", "screenshot"), "report": ("report",), "show": ("show",),
}  # fmt: skip
COMMANDS = {command: module for module, commands in MODULES.items() for command in commands}
"""Which module has a command: only that one is imported, since all take longer than a tenth of the app's start."""


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
    """Run the command line and return its exit code (the ``wbtui`` script)."""
    settings.clear_flags()
    try:
        result = cli.main(args=argv, prog_name="wbtui", standalone_mode=False)
        code = result if isinstance(result, int) else 0
        sys.stdout.flush()
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except (click.Abort, KeyboardInterrupt):
        print("wbtui: interrupted", file=sys.stderr)
        code = 130
    except click.ClickException as error:
        words = io.StringIO()
        error.show(words)  # it repeats what was typed
        print(safe_lines(words.getvalue().rstrip("\n")), file=sys.stderr)
        code = error.exit_code
    except WbtuiError as error:
        print(f"wbtui: {error.line()}", file=sys.stderr)
        code = error.exit_code
    except BrokenPipeError:
        # the reader of our output went away (`| head`): not an error, and nothing more can be said on stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        code = _internal(error)
    if argv is None:
        sys.exit(code)
    return code


def _internal(error: Exception) -> int:
    """A fault of ours: one line for the user, the traceback in the log."""
    try:
        if settings.get("debug"):
            print(safe_lines(traceback.format_exc()), file=sys.stderr)
            return 1
        place = paths.log_dir() / "crash.log"
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("a", encoding="utf-8", errors="backslashreplace") as log:  # `open` is a command here
            log.write(safe_lines(traceback.format_exc()))
        where = f"the traceback is in {place}"
    except (OSError, WbtuiError):
        where = "set WBTUI_DEBUG=1 to see the traceback"
    what = f"wbtui: a fault in wbtui itself: {type(error).__name__}: {' '.join(str(error).split())}; {where}"
    print(safe_lines(what), file=sys.stderr)
    return 1


def _register() -> None:
    """Import every command's module (each keeps heavy imports inside its functions)."""
    for module in MODULES:
        importlib.import_module(f"wbtui.cli.{module}")
