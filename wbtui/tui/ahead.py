"""Keys that are typed ahead: they come several at a time, pasted or over a slow line, and each is meant for what those
before it open.

Textual hands a key to the widget that has the focus when it arrives; its binding runs a few messages later. Of `/word`
in one piece all five keys would go to the screen before the first has opened the bar, and the letters be commands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textual import events
from textual._time import get_time
from textual.app import App

if TYPE_CHECKING:
    from textual.message import Message
    from textual.widget import Widget

AIM = "_wbtui_aim"
"""Of a key: the widget that it was handed to."""
BACK = "_wbtui_back"
"""Of a key that no widget took: Textual marks it as stopped then, as it does one that was taken."""
LOST = 1.0
"""Seconds after which a key that has not come back is waited for no longer."""


class InOrder(App[int]):
    """An app whose keys go where the keys before them lead."""

    def __init__(self, *args: Any, **more: Any) -> None:
        self._under_way: list[events.Key] = []
        super().__init__(*args, **more)

    @property
    def _aim(self) -> Widget:
        return self.focused or self.screen

    def post_message(self, message: Message) -> bool:
        """As Textual's; a key that comes back is on its way to its binding."""
        if isinstance(message, events.Key) and message.is_forwarded:
            setattr(message, BACK, True)
        return super().post_message(message)

    async def on_event(self, event: events.Event) -> None:
        """A key that has just come goes to the focus, or behind those that are still under way through the screen."""
        if not isinstance(event, events.Key) or event.is_forwarded or not self.screen_stack:
            await super().on_event(event)
            return
        screen = self.screen
        self._under_way = [key for key in self._under_way if self._comes_back(key)]
        if self._under_way or self.focused is None:
            self._under_way.append(event)
            setattr(event, AIM, screen)
            if not await self._check_bindings(event.key, priority=True):
                screen._forward_event(event)
            elif event in self._under_way:
                self._under_way.remove(event)
        else:
            setattr(event, AIM, self.focused)
            await super().on_event(event)

    def _comes_back(self, key: events.Key) -> bool:
        """Whether a key is still to come back from the screen that has it."""
        taken = key._stop_propagation and not hasattr(key, BACK)
        return getattr(key, AIM) is self.screen and not taken and get_time() - key.time < LOST

    async def _on_key(self, event: events.Key) -> None:
        """A key that no widget took: where focus or screen are others by now, it is theirs. Textual's own, which comes
        after this, looks for its binding."""
        aim, now = getattr(event, AIM, None), self._aim
        if aim is not None and aim is not now:
            event.prevent_default()
            event.stop()
            again = events.Key(event.key, event.character)
            again._set_forwarded()
            setattr(again, AIM, now)
            now.post_message(again)
        if event in self._under_way:
            self._under_way.remove(event)
