"""wbtui: what sparse-autoencoder features do, read from the weights alone, in a terminal.

From Python: ``wbtui.open("demo@L3")`` (see :mod:`wbtui.api`).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wbtui.api import Features

__version__ = "0.1.0"


def open(address: str, definition: str = "folded") -> Features:
    """The features of an SAE, read-only, with numpy alone (:func:`wbtui.api.open_features`).

    Args:
        address: ``MODEL@SAE``, as on the command line.
        definition: a named definition of the numbers.

    Example:
        >>> import wbtui
        >>> features = wbtui.open("demo@L3")  # doctest: +SKIP
        >>> features["writes.z_max"]  # doctest: +SKIP
    """
    # by name, so that the import contracts do not take the version's readers for readers of the whole package
    api = importlib.import_module("wbtui.api")
    found: Features = api.open_features(address, definition)
    return found
