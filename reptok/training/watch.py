"""Which process holds the others up, told before their collective gives up.

A collective that one rank never joins ends for all others with a timeout that names nobody. Every process
therefore leaves in the group's own store where it is; one that waits too long within a step reads where the
others are.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from datetime import timedelta

import torch.distributed as dist
from torch.distributed.distributed_c10d import _get_default_store

STEP = "step"
POLL_SECONDS = 1.0


class Watch:
    """One process's position, and the look for the others' when a step does not end."""

    def __init__(self, rank: int, world_size: int, patience_seconds: float, say: Callable[[str], None]):
        """Begin to watch from a thread of its own; several processes need a process group.

        Args:
            rank: This process.
            world_size: Number of processes; alone, there is nobody to watch.
            patience_seconds: How long a step may last before the others' positions are told; below the
                collectives' timeout.
            say: Takes the line that names who is behind.
        """
        self._rank, self._world_size, self._patience, self._say = rank, world_size, patience_seconds, say
        self._position: tuple[int, str] = (0, "start")
        self._since = time.monotonic()
        self._ended = threading.Event()
        if world_size > 1:
            # A connection of its own: the one of the collectives may be waiting for a peer.
            self._store = dist.PrefixStore("watch", _get_default_store().clone())
            self._store.set_timeout(timedelta(seconds=10))
            threading.Thread(target=self._run, name="watch", daemon=True).start()

    def __call__(self, step: int, phase: str) -> None:
        """Say where this process is: `STEP`, where it meets the others, or what it does by itself."""
        self._position, self._since = (step, phase), time.monotonic()

    def close(self) -> None:
        """Stop watching."""
        self._ended.set()

    def _run(self) -> None:
        told, written = None, None
        while not self._ended.wait(min(POLL_SECONDS, self._patience / 4)):
            position, waited = self._position, time.monotonic() - self._since
            try:
                if position != written:
                    self._store.set(str(self._rank), json.dumps(position))
                    written = position
                if position[1] == STEP and waited > self._patience and told != position:
                    told = position
                    self._tell(position, waited)
            except Exception as error:  # a store that is gone: the collectives fail, and say so
                self._say(f"rank {self._rank} cannot see where the other ranks are ({error})")
                return

    def _tell(self, position: tuple[int, str], waited: float) -> None:
        found = {rank: self._read(rank) for rank in range(self._world_size)}
        waiting = [rank for rank, place in found.items() if place == position]
        if waiting[:1] != [self._rank]:  # one of those who wait is enough
            return
        behind = [
            f"rank {rank} " + ("has never begun" if place is None else f"is at step {place[0]} ({place[1]})")
            for rank, place in found.items()
            if place != position
        ]
        who = "; ".join(behind) or "every rank is in it, so a collective itself hangs"
        self._say(
            f"step {position[0]} has not ended for {waited:.0f} s; {len(waiting)} of {len(found)} ranks "
            f"wait in it: {who}"
        )

    def _read(self, rank: int) -> tuple[int, str] | None:
        if rank == self._rank:
            return self._position
        if not self._store.check([str(rank)]):
            return None
        step, phase = json.loads(self._store.get(str(rank)))
        return step, phase
