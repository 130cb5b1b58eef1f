"""Keys that are typed ahead: they come several at a time, pasted or over a slow line, and each is meant for what those
before it open.

Textual hands a key to the widget that has the focus when it arrives; its binding runs a few messages later. Of `/word`
in one piece all five keys would go to the screen before the first has opened the bar, and the letters be commands; and
of `word⏎j` the `j` would be a letter of the bar, a backspace take away what was typed behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textual import events
from textual._time import get_time
from textual.app import App
from textual.message import Message

if TYPE_CHECKING:
    from textual.timer import Timer
    from textual.widget import Widget

AIM = "_wbtui_aim"
"""Of a key: the widget that it was handed to."""
BACK = "_wbtui_back"
"""Of a key that no widget took: Textual marks it as stopped then, as it does one that was taken."""
LOST = 1.0
"""Seconds after which a key that has not come back is waited for no longer."""
LOOK = 0.05
"""Seconds between two looks whether keys are held for nothing."""


class Passed(Message):
    """Sent behind a key, on the way that the key takes: where this has come back, so has all that went before it.

    A first one comes back behind the key, whose binding has run then; a second one behind what the binding sent."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times


class InOrder(App[int]):
    """An app whose keys go where the keys before them lead."""

    def __init__(self, *args: Any, **more: Any) -> None:
        self._under_way: list[events.Key] = []
        self._held: list[events.Key] = []
        """Keys behind one that an entry may answer by leaving, or by changing what they stand behind."""
        self._holding: Timer | None = None
        self._answered: events.Key | None = None
        """The key that they are behind."""
        self._heeded = False
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
        screen, entry = self.screen, self.focused
        self._look_again()
        if self._holding is not None and self._left:
            await self._let_go()
        if self._under_way or (entry is None and self._holding is None):
            self._under_way.append(event)
            setattr(event, AIM, screen)
            if not await self._check_bindings(event.key, priority=True):
                screen._forward_event(event)
            elif event in self._under_way:
                self._under_way.remove(event)
        elif self._holding is not None or entry is None:
            self._held.append(event)
        else:
            setattr(event, AIM, entry)
            await super().on_event(event)
            self._hold_behind(event, entry)

    def _look_again(self) -> None:
        self._under_way = [key for key in self._under_way if self._comes_back(key)]

    def _comes_back(self, key: events.Key) -> bool:
        """Whether a key is still to come back from the screen that has it."""
        taken = key._stop_propagation and not hasattr(key, BACK)
        return getattr(key, AIM) is self.screen and not taken and get_time() - key.time < LOST

    async def _on_key(self, event: events.Key) -> None:
        """A key that no widget took: where focus or screen are others by now, it is theirs. Textual's own, which comes
        after this, looks for its binding."""
        aim, now = getattr(event, AIM, None), self._aim
        if aim is not None and event is not self._answered and (self._holding is not None or aim is not now):
            event.prevent_default()
            event.stop()
            again = events.Key(event.key, event.character)
            if self._holding is not None:
                self._held.append(again)
            elif not await self._check_bindings(again.key, priority=True):
                again._set_forwarded()
                setattr(again, AIM, now)
                now.post_message(again)
                if now is self.focused:
                    self._hold_behind(again, now)
        if event in self._under_way:
            self._under_way.remove(event)
        await self._go_on()

    def _hold_behind(self, key: events.Key, entry: Widget) -> None:
        """Keys behind one that is no letter wait until the entry's answer has been heeded."""
        if not key.is_printable and entry.post_message(Passed(1)):
            self._answered = key
            self._holding = self.set_interval(LOOK, self._wait)

    @property
    def _left(self) -> bool:
        """Whether the entry has been left together with its screen: what was sent through it may be lost."""
        entry = getattr(self._answered, AIM)
        return not entry.is_attached or entry.screen is not self.screen

    async def _wait(self) -> None:
        if self._answered is not None and (self._left or get_time() - self._answered.time > LOST):
            await self._let_go()

    async def on_passed(self, message: Passed) -> None:
        """A key has been answered by its binding; the second time, what the binding sent has been heeded too."""
        entry = self.focused
        if self._holding is not None and (message.times > 1 or entry is None or not entry.post_message(Passed(2))):
            self._heeded = True
            await self._go_on()

    async def _go_on(self) -> None:
        """Those that are held go on, behind those that are still under way."""
        self._look_again()
        if self._heeded and not self._under_way:
            await self._let_go()

    async def _let_go(self) -> None:
        """The keys that were held go on, as if they came now."""
        if self._holding is not None:
            self._holding.stop()
        self._holding = self._answered = None
        self._heeded = False
        held, self._held = self._held, []
        for key in held:
            await self.on_event(key)
