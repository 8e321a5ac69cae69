"""How many workers each step of a chain gets, so that all steps have some at the same time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from pipelines.dag.shards import WorkerResources

UNIT = 10_000  # Ray counts ten-thousandths of a CPU
ENDLESS = 100_000
"""Workers of a step that wants as many as there is room for, and occupies nothing."""


def room(need: WorkerResources, machines: Iterable[Sequence[float]]) -> int:
    """How many workers find a place at the same time on machines of so many CPUs and GPUs; at least one."""
    each = [
        min(there // wanted for there, wanted in zip(machine, (need.cpus, need.gpus), strict=True) if wanted)
        if need.cpus or need.gpus
        else ENDLESS
        for machine in machines
    ]
    return max(1, int(sum(each)))


def allotted(
    needs: Sequence[WorkerResources], machines: Iterable[tuple[float, float]], *, shared: bool = False
) -> list[WorkerResources]:
    """What the leading steps get, as many as can work at the same time.

    Each gets a worker, in order; what is left goes to one after the other, up to the workers that it wants
    (0: all that find a place). A step whose first worker finds no place is left out, with those behind it.

    Args:
        needs: what each step wants.
        machines: CPUs and GPUs of each.
        shared: the CPUs are those of one machine of ours, and what a worker occupies is a word: all of them
            run, each with less. GPUs are never shared.
    """
    free = [[cpus, gpus] for cpus, gpus in machines]
    if shared:
        needs = [need if need.workers else replace(need, workers=room(need, free)) for need in needs]
        wanted = sum(need.workers * need.cpus for need in needs)
        part = min(1.0, sum(cpus for cpus, _ in free) / wanted) if wanted else 1.0
        needs = [replace(need, cpus=math.floor(need.cpus * part * UNIT) / UNIT) for need in needs]
    counts: list[int] = []
    for need in needs:
        if not _placed(need, free):
            break
        counts.append(1)
    growing = set(range(len(counts)))
    while growing:
        for number in sorted(growing):
            if counts[number] < (needs[number].workers or ENDLESS) and _placed(needs[number], free):
                counts[number] += 1
            else:
                growing.discard(number)
    return [replace(need, workers=count) for need, count in zip(needs, counts, strict=False)]


def _placed(need: WorkerResources, free: list[list[float]]) -> bool:
    """Whether a worker has found a machine; takes what it occupies there."""
    for machine in free:
        if machine[0] >= need.cpus and machine[1] >= need.gpus:
            machine[0] -= need.cpus
            machine[1] -= need.gpus
            return True
    return False
