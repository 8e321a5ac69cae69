"""Memory that several threads share by asking for it first."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.crawl.reasons import Failure


class MemoryBudget:
    """Bytes that the decoding threads of a worker may take together.

    Args:
        most: how many.
    """

    def __init__(self, most: int) -> None:
        self._most = self._free = most
        self._freed = threading.Condition()

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Hold `size` bytes, as soon as others have given back enough; small ones may overtake large ones.

        Raises:
            Failure: too_much_memory, if there are not so many at all.
        """
        if size > self._most:
            raise Failure("too_much_memory", f"{size:,} bytes, more than {self._most:,}")
        with self._freed:
            self._freed.wait_for(lambda: size <= self._free)
            self._free -= size
        try:
            yield
        finally:
            with self._freed:
                self._free += size
                self._freed.notify_all()
