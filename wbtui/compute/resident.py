"""What a worker keeps between shards: prepared weights, least recently used out first, bounded by bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class Resident:
    """A small cache of prepared objects by key.

    Args:
        limit: bytes to keep at most; the newest object stays even when it alone is larger.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._items: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], T], size: Callable[[T], int]) -> T:
        """The object for ``key``, made if it is not here; ``size`` tells its bytes."""
        with self._lock:
            if key in self._items:
                self._items.move_to_end(key)
                return self._items[key][0]
        value = make()
        with self._lock:
            self._items[key] = (value, size(value))
            self._items.move_to_end(key)
            while len(self._items) > 1 and self.bytes > self.limit:
                self._items.popitem(last=False)
        return value

    def has(self, key: Hashable) -> bool:
        """Whether an object is here."""
        return key in self._items

    @property
    def keys(self) -> list[Any]:
        """Keys of what is here."""
        with self._lock:
            return list(self._items)

    @property
    def bytes(self) -> int:
        """Bytes held."""
        return sum(size for _, size in self._items.values())

    def clear(self) -> None:
        """Let everything go (idle unload)."""
        with self._lock:
            self._items.clear()
