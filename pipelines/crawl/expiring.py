"""A bounded memory whose entries grow old: what a worker knows about hosts outlives a shard, but not long."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

V = TypeVar("V")


class Expiring(Generic[V]):
    """Values by name, forgotten after some seconds or when newer ones need the room.

    Args:
        seconds: how long a value is believed.
        entries: most values kept.
        clock: seconds that only grow.
    """

    def __init__(
        self, seconds: float, entries: int = 20_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds, self._entries, self._clock = seconds, entries, clock
        self._values: dict[str, tuple[float, V]] = {}

    def get(self, name: str) -> V | None:
        """The value, or None if there is none that is fresh."""
        stored = self._values.get(name)
        if stored is None or stored[0] < self._clock():
            return None
        return stored[1]

    def put(self, name: str, value: V) -> None:
        """Remember a value; the one that was remembered first makes room."""
        self._values.pop(name, None)
        if len(self._values) >= self._entries:
            del self._values[next(iter(self._values))]
        self._values[name] = (self._clock() + self._seconds, value)
