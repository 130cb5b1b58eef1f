"""The words for every state in which there are no numbers to draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wbtui.display import safe_token_text
from wbtui.tui.draw.frame import job_text
from wbtui.tui.draw.line import Line, rule, wrap

if TYPE_CHECKING:
    from wbtui.tui import state as st
    from wbtui.tui.data import Arranged, Opened
    from wbtui.tui.screens.main import MainScreen


def empty_lines(
    opened: Opened | None, failure: str, view: st.View, arranged: Arranged | None, width: int
) -> list[Line]:
    """What stands in the table where it has no rows."""
    room = max(10, width - 6)

    def say(*texts: tuple[str, str]) -> list[Line]:
        out: list[Line] = [[]]
        for text, role in texts:
            out += [[("   ", "text"), *line] for line in wrap(safe_token_text(text).split(), room, role)]
        return out

    if failure:
        return say((failure, "error"), ("o opens another model or SAE", "dim"))
    if opened is None:
        return say(("opening…", "dim"))
    if opened.table.n == 0:
        return say(("this SAE has no features", "text"))
    if arranged is not None and arranged.rows is not None and len(arranged.rows) == 0:
        hint = arranged.hint
        return say(("no feature matches", "text"), *([(hint, "dim")] if hint else []), ("Esc clears the filter", "dim"))
    return []


FIRST_RUN = (
    "a row is a feature of the SAE; its words are what it writes, strongest first, noise left out",
    "the card says how far each stands above random directions (░ noise, █ beyond it), and what the feature reads",
    "/ finds: a word, semantic, z_max>6, kind=set · s sorts · : goes to a number or address · < > other layers",
    "m marks, x exports what is marked or found · ⏎ one feature on the whole screen · D what each number means",
    "? brings this and every key back; any key begins",
)


def first_run_lines(width: int) -> list[Line]:
    """Five lines for a first visit, gone at the first key."""
    out: list[Line] = [rule(width, "WELCOME")]
    for text in FIRST_RUN:
        out += [[("  ", "text"), *line] for line in wrap(text.split(), width - 2, "text", indent="  ")]
    return out


def waiting_lines(screen: MainScreen, row: int, width: int) -> list[Line]:
    """The card of a feature whose row is not there: what is under way, or why nothing is."""
    opened = screen.opened
    assert opened is not None
    head: Line = [(f"#{row}", "strong"), ("  NOT COMPUTED YET", "dim")]
    desk = screen.wb.desk
    out = [head]

    def say(text: str, role: str = "dim") -> None:
        out.extend(wrap(safe_token_text(text).split(), width, role))

    failed = screen.row_failure.get(row)
    if failed:
        say(failed, "error")
        say("C asks again")
    elif desk.state in ("down", "other version"):
        say(desk.line or "the service is down", "warn")
        say("finished numbers can be browsed; C asks again")
    elif not opened.writable:
        say("the cache is read-only: this feature alone is computed, and kept nowhere")
    else:
        say("computing this feature, ahead of the others…")
    if screen.job is not None and screen.job.get("state") in ("queued", "running"):
        say(job_text(screen.job))
    out.append([])
    say("It will say what the feature writes and reads: its strongest words, how far they stand above the same "
        "measure of random directions, and where it stands among all features of this SAE.")  # fmt: skip
    return out
