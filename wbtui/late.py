"""Work of a start that can be done later: methods of dataclasses are compiled when they are first called.

A start imports some 150 dataclasses, Textual's among them, and the standard library compiles up to six methods for each
while it is defined: a tenth of the time to the first picture, for methods most of which are never called. Inside
:func:`late_methods` each is a short function that compiles the real one when it is called, puts it in its place and
calls it. Nothing else changes: fields, equality, order, hashes, frozen attributes and slots are the library's own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any


def _late(make: Callable[..., Any]) -> Callable[..., Any]:
    """``dataclasses._create_fn``, whose functions are made at their first call."""

    @functools.wraps(make)
    def create(name: str, *args: Any, **more: Any) -> Any:
        def stub(self: Any, *given: Any, **named: Any) -> Any:
            real = make(name, *args, **more)
            real.__qualname__ = stub.__qualname__
            for owner in type(self).__mro__:
                if owner.__dict__.get(name) is stub:
                    setattr(owner, name, real)
            return real(self, *given, **named)

        stub.__name__ = name
        return stub

    return create


@contextlib.contextmanager
def late_methods() -> Iterator[None]:
    """Dataclasses that are defined inside have their methods compiled when they are called.

    In a Python whose ``dataclasses`` makes functions in another way (3.13 compiles those of a class in one go) nothing
    is changed.
    """
    make = getattr(dataclasses, "_create_fn", None)
    if make is None:
        yield
        return
    dataclasses._create_fn = _late(make)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        dataclasses._create_fn = make  # type: ignore[attr-defined]
