"""The ``wbtui`` command: an address, or nothing, goes straight to the app; everything else to :mod:`wbtui.cli`.

The command line's parser takes a twentieth of the time to the app's first picture, and there is nothing to parse in the
way in which the app is mostly started.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

MODULES = {
    "ask": ("edges", "find", "flow"), "cache": ("cache",), "check": ("check",), "compute": ("compute",),
    "config": ("config",), "daemon": ("daemon",), "doctor": ("doctor",), "download": ("download", "releases"),
    "export": ("export",), "labels": ("labels",), "listing": ("keys", "models", "saes"), "match": ("match",),
    "notes": ("notes",), "open": ("demo", "open", "screenshot"), "report": ("report",), "show": ("show",),
}  # fmt: skip
COMMANDS = {command: module for module, commands in MODULES.items() for command in commands}
"""Which module has a command: only that one is imported, since all take longer than a tenth of the app's start."""
COMPLETION = "_WBTUI_COMPLETE"
"""The variable with which a shell asks the command line how a word goes on."""


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code (the ``wbtui`` script)."""
    words = sys.argv[1:] if argv is None else argv
    if not app_alone(words):
        from wbtui import cli

        return cli.main(argv)
    from wbtui import settings

    settings.clear_flags()
    code = guarded(lambda: open_app(words[0] if words else None, str(settings.get("definition"))))
    if argv is None:
        sys.exit(code)
    return code


def app_alone(words: list[str]) -> bool:
    """Whether what was typed is no more than an address: no option, no command, no shell that asks."""
    plain = not words or (len(words) == 1 and not words[0].startswith("-") and words[0] not in COMMANDS)
    return plain and COMPLETION not in os.environ


def open_app(address: str | None, definition: str) -> int:
    """The app in this terminal; its exit code.

    Raises:
        WbtuiError: as :func:`wbtui.tui.run.run_app`; where there is no terminal it names what needs none.
    """
    from wbtui.tui.run import run_app, without_terminal

    if missing := without_terminal():
        from wbtui.errors import UsageError

        place = address or "demo@L3"
        raise UsageError(
            f"no terminal on {missing}",
            "a terminal for the app",
            f"without one: `wbtui show '{place}' --json`, `wbtui export`, `wbtui screenshot '{place}' -o app.svg`",
        )
    return run_app(address, definition=definition)


def guarded(work: Callable[[], int]) -> int:
    """The exit code of some work; what goes wrong is one line on stderr."""
    from wbtui.errors import WbtuiError

    try:
        code = work()
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("wbtui: interrupted", file=sys.stderr)
        code = 130
    except WbtuiError as error:
        print(f"wbtui: {error.line()}", file=sys.stderr)
        code = error.exit_code
    except BrokenPipeError:
        # the reader of our output went away (`| head`): not an error, and nothing more can be said on stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        code = _internal(error)
    return code


def _internal(error: Exception) -> int:
    """A fault of ours: one line for the user, the traceback in the log."""
    import traceback

    from wbtui import paths, settings
    from wbtui.display import safe_lines
    from wbtui.errors import WbtuiError

    try:
        if settings.get("debug"):
            print(safe_lines(traceback.format_exc()), file=sys.stderr)
            return 1
        place = paths.log_dir() / "crash.log"
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("a", encoding="utf-8", errors="backslashreplace") as log:
            log.write(safe_lines(traceback.format_exc()))
        where = f"the traceback is in {place}"
    except (OSError, WbtuiError):
        where = "set WBTUI_DEBUG=1 to see the traceback"
    what = f"wbtui: a fault in wbtui itself: {type(error).__name__}: {' '.join(str(error).split())}; {where}"
    print(safe_lines(what), file=sys.stderr)
    return 1
