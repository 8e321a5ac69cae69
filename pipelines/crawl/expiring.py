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
        room: most sizes together of the values that are kept.
        clock: seconds that only grow.
    """

    def __init__(
        self, seconds: float, room: int = 20_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds, self._room, self._clock = seconds, room, clock
        self._values: dict[str, tuple[float, int, V]] = {}
        self._taken = 0

    def get(self, name: str) -> V | None:
        """The value, or None if there is none that is fresh."""
        stored = self._values.get(name)
        if stored is None or stored[0] < self._clock():
            return None
        return stored[2]

    def put(self, name: str, value: V, size: int = 1) -> None:
        """Remember a value; the ones that were remembered first make room. One too large is not kept."""
        if name in self._values:
            self._forget(name)
        if size > self._room:
            return
        while self._taken + size > self._room:
            self._forget(next(iter(self._values)))
        self._values[name] = (self._clock() + self._seconds, size, value)
        self._taken += size

    def _forget(self, name: str) -> None:
        self._taken -= self._values.pop(name)[1]
