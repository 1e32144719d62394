"""A cache bounded by bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Cache(dict[K, V]):
    """Keeps what was used lately, up to about `limit` bytes; `cache[key]` loads what is not kept. Thread-safe.

    `load` gives a value and how many bytes it takes.

    Two generations: when the young one holds half the limit it becomes the old one, and the old one is forgotten. What
    is found in the old one moves to the young one. The young one is the dict itself: a hit runs no Python code.
    """

    def __init__(self, limit: int, load: Callable[[K], tuple[V, int]]) -> None:
        super().__init__()
        self._load = load
        self._half = limit // 2
        self._held = 0
        self._sizes: dict[K, int] = {}
        self._old: dict[K, V] = {}
        self._old_sizes: dict[K, int] = {}
        self._lock = threading.Lock()

    def __missing__(self, key: K) -> V:
        """Load what is not kept."""
        found = self.find(key)
        if found is None:
            found, size = self._load(key)
            self.put(key, found, size)
        return found

    def find(self, key: K) -> V | None:
        """The value kept under `key`, or None."""
        found = self.get(key)
        if found is not None:
            return found
        with self._lock:
            found, size = self._old.get(key), self._old_sizes.get(key, 0)
        if found is not None:
            self.put(key, found, size)
        return found

    def put(self, key: K, value: V, size: int) -> None:
        """Keep `value`, which takes `size` bytes."""
        with self._lock:
            if key in self._sizes:
                return
            if self._held + size > self._half:
                # Whoever looks meanwhile finds in the old one what the young one lacks already.
                self._old, self._old_sizes = dict(self), self._sizes
                self.clear()
                self._sizes, self._held = {}, 0
            self[key] = value
            self._sizes[key] = size
            self._held += size

    def empty(self) -> None:
        """Keep nothing of what is kept now."""
        with self._lock:
            self.clear()
            self._sizes, self._old, self._old_sizes, self._held = {}, {}, {}, 0

    def __contains__(self, key: object) -> bool:
        """Whether find would find something."""
        return super().__contains__(key) or key in self._old
