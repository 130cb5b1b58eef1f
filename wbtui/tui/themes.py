"""The two looks of our own as Textual's themes: for what Textual itself draws."""

from __future__ import annotations

from textual.theme import Theme

from wbtui.tui.theme import BACKGROUND, INK, PAPER, TEXT

PANEL = "#161c24"

THEME = Theme(
    name="wbtui",
    primary="#6cb6c9",
    secondary="#e2b15b",
    accent="#e2b15b",
    warning="#e2b15b",
    error="#e5786d",
    success="#8fc77e",
    foreground=TEXT,
    background=BACKGROUND,
    surface=BACKGROUND,
    panel=PANEL,
    dark=True,
    variables={
        "input-cursor-background": TEXT,
        "input-cursor-foreground": BACKGROUND,
        "input-selection-background": "#39434e",
    },
)


LIGHT_THEME = Theme(
    name="wbtui-light",
    primary="#005f87",
    secondary="#875f00",
    accent="#875f00",
    warning="#875f00",
    error="#af0000",
    success="#005f00",
    foreground=INK,
    background=PAPER,
    surface=PAPER,
    panel="#efeee8",
    dark=False,
    variables={
        "input-cursor-background": INK,
        "input-cursor-foreground": PAPER,
        "input-selection-background": "#b9cfe0",
    },
)
