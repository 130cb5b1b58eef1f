"""Modules that the imports of a start ask for and no start uses: a stand-in is imported in their place.

Textual's app imports its command palette, which imports a quarter of its widgets; asyncio imports TLS, and the app
talks to nothing but a Unix socket; numpy imports the names of its types. What a stand-in gives out is the real thing as
soon as it is used, and the modules themselves can be imported as ever once a start is over.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import types
from collections.abc import Iterator
from typing import Any

PALETTE = "textual.command"
NAMES = ("CommandListItem", "CommandPalette", "DiscoveryHit", "Hit", "Hits", "Provider", "SimpleProvider")
"""What Textual's app imports of it, for methods that this app does not call. A class made of one (its list of themes)
is no :class:`textual.command.Provider`."""


class Later:
    """A class of a module that is imported when the class is called, or something is asked of it."""

    def __init__(self, module: str, name: str) -> None:
        self._place = module, name

    def _real(self) -> Any:
        module, name = self._place
        return getattr(importlib.import_module(module), name)

    def __call__(self, *args: Any, **more: Any) -> Any:
        return self._real()(*args, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real(), name)

    def __mro_entries__(self, bases: tuple[object, ...]) -> tuple[type, ...]:
        return ()


class _StandIn(types.ModuleType):
    """A module that has some names only, and loads the real one for every other."""

    def __init__(self, name: str, names: dict[str, Any]) -> None:
        super().__init__(name)
        self.__dict__.update(names)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


@contextlib.contextmanager
def _instead(stand_in: _StandIn) -> Iterator[None]:
    name = stand_in.__name__
    if name in sys.modules:
        yield
        return
    sys.modules[name] = stand_in
    try:
        yield
    finally:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]


def without_palette() -> contextlib.AbstractContextManager[None]:
    """What is imported inside gets Textual's command palette when it uses it."""
    return _instead(_StandIn(PALETTE, {each: Later(PALETTE, each) for each in NAMES}))


def without_types() -> contextlib.AbstractContextManager[None]:
    """numpy that is imported inside has no types to annotate with: in a running program nothing reads them."""
    return _instead(_StandIn("numpy._typing", {"NDArray": dict}))


@contextlib.contextmanager
def without_tls() -> Iterator[None]:
    """asyncio that is imported inside has no TLS, as in a Python that was built without; others import it as ever."""
    if "ssl" in sys.modules or "asyncio" in sys.modules:
        yield
        return
    sys.modules["ssl"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["ssl"]
