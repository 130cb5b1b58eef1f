"""Errors that a user can read: what was found, what was expected, what to do.

Every error that leaves wbtui on purpose is a ``WbtuiError``. Its exit code is part of the command line's
contract: 1 work failed or weights unreadable, 2 something the user typed, 3 no service, 4 timed out.
"""

from __future__ import annotations


class WbtuiError(Exception):
    """A failure with its evidence.

    Args:
        found: what is there, naming the file, value or place.
        expected: what should have been there; may be empty.
        do: what the user can do about it; may be empty.
    """

    exit_code = 1

    def __init__(self, found: str, expected: str = "", do: str = "") -> None:
        self.found = found
        self.expected = expected
        self.do = do
        super().__init__(self.line())

    def line(self) -> str:
        """One line for stderr, a notification or a log; what a file's name could do to a terminal is escaped."""
        parts = [self.found]
        if self.expected:
            parts.append(f"expected {self.expected}")
        if self.do:
            parts.append(self.do)
        from wbtui.display import safe_token_text

        return safe_token_text(" ".join("; ".join(parts).split()) or "unknown error")

    def to_json(self) -> dict[str, str]:
        """The error as it travels between the service and a client."""
        return {
            "code": type(self).__name__,
            "found": self.found,
            "expected": self.expected,
            "do": self.do,
        }

    @staticmethod
    def from_json(data: dict[str, str]) -> WbtuiError:
        """The inverse of :meth:`to_json`; an unknown code becomes a plain ``WbtuiError``."""
        cls = _BY_NAME.get(data.get("code", ""), WbtuiError)
        return cls(data.get("found", "unknown error"), data.get("expected", ""), data.get("do", ""))


class UsageError(WbtuiError):
    """What the user typed: an address, a name, a filter, a number out of range."""

    exit_code = 2


class WeightsError(WbtuiError):
    """A checkpoint or SAE that cannot be read or is not understood."""


class StoreError(WbtuiError):
    """The cache cannot be read or written."""


class WorkError(WbtuiError):
    """A computation that failed."""


class ServiceError(WbtuiError):
    """No service can be reached, or it is of another version."""

    exit_code = 3


class TimedOut(WbtuiError):
    """Something took longer than the user allowed."""

    exit_code = 4


class Cancelled(WbtuiError):
    """Work that was stopped on request."""

    exit_code = 130


_BY_NAME: dict[str, type[WbtuiError]] = {
    cls.__name__: cls
    for cls in (WbtuiError, UsageError, WeightsError, StoreError, WorkError, ServiceError, TimedOut, Cancelled)
}
