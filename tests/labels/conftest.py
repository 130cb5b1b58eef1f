"""The app's places, for labels on screen."""

from tests.tui.conftest import ready  # noqa: F401
