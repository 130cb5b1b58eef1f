"""The command palette: every key of the screen on top, found by its words, from the same table as the footer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from rich.text import Text
from textual.command import DiscoveryHit, Hit, Hits, Provider

from wbtui.display import safe_token_text
from wbtui.tui import keymap

if TYPE_CHECKING:
    from wbtui.tui.app import WbtuiApp
    from wbtui.tui.keymap import Key
    from wbtui.tui.screens.base import WbScreen

HIDDEN = ("palette", "escape")
"""Not offered: what opened it, and what closes things."""


class KeyCommands(Provider):
    """The keys that hold where the palette was opened."""

    def _keys(self) -> Iterator[Key]:
        context = getattr(cast("WbScreen", self.screen), "CONTEXT", "main")
        for key in keymap.current().get(context, ()):
            if not key.id.endswith(HIDDEN):
                yield key

    def _run(self, key: Key) -> Callable[[], Any]:
        return partial(self.app.run_action, key.action, self.screen)

    async def discover(self) -> Hits:
        """All of them, before a word is typed."""
        for key in self._keys():
            yield DiscoveryHit(_words(key), self._run(key), text=key.tooltip, help=key.id)

    async def search(self, query: str) -> Hits:
        """Those whose words match."""
        matcher = self.matcher(query)
        for key in self._keys():
            if (score := matcher.match(f"{key.id} {key.tooltip}")) > 0:
                yield Hit(score, _words(key), self._run(key), text=key.tooltip, help=key.id)


class Places(Provider):
    """An address that is typed or pasted, a page of Neuronpedia too: the palette goes there."""

    async def search(self, query: str) -> Hits:
        """The address itself, where the words are one."""
        from wbtui.catalog.neuronpedia import is_page

        text = query.strip()
        shown = safe_token_text(text) if text else ""
        if is_page(text) or ("@" in text.strip("@") and " " not in text):
            yield Hit(2.0, Text.assemble("go to ", (shown, "bold")), partial(self._go, text), text=text, help="address")

    def _go(self, text: str) -> None:
        from wbtui.errors import WbtuiError
        from wbtui.tui.screens.main import MainScreen

        app = cast("WbtuiApp", self.app)
        main = app.main
        while main is not None and app.screen is not main and len(app.screen_stack) > 1:
            app.pop_screen()
        if isinstance(main, MainScreen):
            try:
                main.go(text)
            except WbtuiError as error:
                main.notify_line(error.line(), "error")


def _words(key: Key) -> Text:
    """What a key does, and the key; no markup is read out of it."""
    return Text.assemble(key.tooltip, "   ", (key.shown, "bold"))
