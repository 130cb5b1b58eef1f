"""The main screen's questions: find by direction, edges, flow, a vector of the user's."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

from wbtui.errors import UsageError
from wbtui.features.asking import Asked, parse
from wbtui.tui.screens.main_actions import MainActions

if TYPE_CHECKING:
    from wbtui.tui.screens.main import MainScreen


class MainAsk:
    """Mixed into :class:`wbtui.tui.screens.main.MainScreen`."""

    last_question = "w:"
    """What was asked last, to be asked again with a change."""

    @property
    def _main(self) -> MainScreen:
        return cast("MainScreen", self)

    async def action_ask(self) -> None:
        """The find bar."""
        if self._main.opened is not None:
            await self._main.open_bar("ask", " ? ", self.last_question)

    def submit_question(self, text: str) -> None:
        """Enter in a bar with a question."""
        me = self._main
        jump = me.typing == "jump"
        try:
            asked = parse(text)
            if asked.kind == "vector" and not asked.position:
                raise UsageError(f"{asked.path}: no stream position", "where it lives, @L3.resid_post behind it")
        except UsageError as error:
            MainActions.notify_line(me, error.line(), "error")
            return
        me.close_bar()
        if me.opened is None:
            return
        self.last_question = asked.text
        if jump and asked.kind == "vector":
            self._direction(asked)
        else:
            self.push_find(asked.text, all_layers=False)

    def push_find(self, text: str, *, all_layers: bool) -> None:
        """Open the page of a find query."""
        from wbtui.tui.screens.answer import AnswerScreen

        me = self._main
        if me.opened is not None:
            me.app.push_screen(AnswerScreen(me, me.opened, query=text, all_layers=all_layers))

    def action_edges(self) -> None:
        """What could feed the feature, and what could read it."""
        from wbtui.tui.screens.answer import AnswerScreen

        me = self._main
        if me.opened is not None and me.opened.table.n:
            me.app.push_screen(AnswerScreen(me, me.opened, feature=me.view.cursor))

    def action_flow(self) -> None:
        """Where the feature comes from and where it goes."""
        from wbtui.tui.screens.flow import FlowScreen

        me = self._main
        if me.opened is not None and me.opened.table.n:
            me.app.push_screen(FlowScreen(me, me.opened, me.view.cursor))

    def _direction(self, asked: Asked) -> None:
        from wbtui.tui.screens.direction import DirectionScreen

        me = self._main
        assert me.opened is not None
        me.app.push_screen(DirectionScreen(me.opened, asked))


def absolute(asked: Asked) -> str:
    """A query with its vector's path made absolute: the service works in another folder."""
    if asked.kind != "vector":
        return asked.text
    name = f":{asked.tensor}" if asked.tensor else ""
    place = f"@{asked.position}" if asked.position else ""
    prefix = "r:" if asked.side == "reads" else ""
    return f"{prefix}dir:{os.path.abspath(os.path.expanduser(asked.path))}{name}{place}"
