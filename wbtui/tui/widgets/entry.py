"""A line of text that leaves some keys to its screen."""

from __future__ import annotations

from textual import events
from textual.widgets import Input


class Entry(Input):
    """An input in which keys of ``pass_on`` are no letters but the screen's keys."""

    pass_on: frozenset[str] = frozenset()

    def check_consume_key(self, key: str, character: str | None) -> bool:
        """Whether a key is text here."""
        return key not in self.pass_on and super().check_consume_key(key, character)

    async def _on_key(self, event: events.Key) -> None:
        if event.key not in self.pass_on:
            await super()._on_key(event)
