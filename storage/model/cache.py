"""A cache bounded by bytes."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Cache(Generic[K, V]):
    """Keeps what was used lately, up to about `limit` bytes. Thread-safe; a hit costs one or two dict lookups.

    Two generations: when the young one holds half the limit it becomes the old one, and the old one is forgotten. What
    is found in the old one moves to the young one.
    """

    def __init__(self, limit: int) -> None:
        self._half = limit // 2
        self._young: dict[K, tuple[V, int]] = {}
        self._old: dict[K, tuple[V, int]] = {}
        self._held = 0
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        """The value kept under `key`, or None."""
        found = self._young.get(key)
        if found is not None:
            return found[0]
        found = self._old.get(key)
        if found is None:
            return None
        self.put(key, *found)
        return found[0]

    def put(self, key: K, value: V, size: int) -> None:
        """Keep `value`, which takes `size` bytes."""
        with self._lock:
            if key in self._young:
                return
            if self._held + size > self._half:
                self._old, self._young, self._held = self._young, {}, 0
            self._young[key] = (value, size)
            self._held += size

    def __contains__(self, key: K) -> bool:
        """Whether get would find something."""
        return key in self._young or key in self._old

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._young, self._old, self._held = {}, {}, 0
