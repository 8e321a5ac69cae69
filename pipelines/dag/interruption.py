"""Time for what runs to save itself, before Ctrl-C or SIGTERM end the program."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_running: dict[threading.Event, Callable[[], None]] = {}
_interrupted = threading.Event()


@contextmanager
def saving_when_asked(ask: Callable[[], None]) -> Iterator[None]:
    """Surround work that can save itself.

    When the program is interrupted, `ask` is called, and the program waits for the block to end.
    """
    ended = threading.Event()
    with _lock:
        _running[ended] = ask
    try:
        yield
    finally:
        with _lock:
            del _running[ended]
        ended.set()


def reset() -> None:
    """Begin: nothing has been interrupted yet."""
    _interrupted.clear()


def interrupted() -> bool:
    """Whether the program is about to end because it was told to."""
    return _interrupted.is_set()


def interrupt(seconds: float) -> bool:
    """Ask all such work to save itself, and wait at most so long; whether it has ended in time."""
    _interrupted.set()
    with _lock:
        running = dict(_running)
    for ask in running.values():
        ask()
    end = time.monotonic() + seconds
    return all(ended.wait(max(0.0, end - time.monotonic())) for ended in running)
