"""Wait for machines in a way that a placement which failed halfway cannot stall.

Ray's control service books CPUs at a machine before that machine has agreed. Where the call fails, since the
machine is cut off, the booking stays in its books although the machine comes back idle: machines report
changes only, none comes, and whoever waits for those CPUs waits for ever (seen with Ray 2.59, after a link
was cut while a training started again). A task of a hundredth of a CPU on every machine is a change.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

SECONDS = 30.0
PENDING = ("PENDING", "RESCHEDULING")
ANSWER_SECONDS = 30.0


@contextmanager
def reported_anew(seconds: float = SECONDS) -> Iterator[None]:
    """While the block runs, have every machine report its CPUs where a placement waits two looks in a row.

    Args:
        seconds: between two looks.
    """
    stop = threading.Event()
    watch = threading.Thread(target=_watch, args=(stop, seconds), name="placement", daemon=True)
    watch.start()
    try:
        yield
    finally:
        stop.set()
        watch.join()


def _watch(stop: threading.Event, seconds: float) -> None:
    import ray

    waited = False
    while not stop.wait(seconds):
        waits = bool(waiting())
        if waits and waited:
            nudge()
            stop.wait(1)  # reports are on their way
            free, there = (
                found.get("CPU", 0) for found in (ray.available_resources(), ray.cluster_resources())
            )
            print(f"  waiting for machines: {free:g} of the cluster's {there:g} CPUs are free", flush=True)
        waited = waits


def waiting() -> list[str]:
    """Ids of the placements that Ray has not found machines for."""
    from ray.util import placement_group_table

    groups = placement_group_table()
    return [name for name, group in groups.items() if group["state"] in PENDING]


def nudge() -> list[str]:
    """Run something tiny on every machine with a CPU; the ids of those that did it within half a minute."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.remote(num_cpus=0.01, max_retries=0)(_here)
    asked = [
        here.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], False)).remote()
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("CPU")
    ]
    done = ray.wait(asked, num_returns=len(asked), timeout=ANSWER_SECONDS)[0] if asked else []
    answered = []
    for answer in done:
        with suppress(ray.exceptions.RayError):  # it went away meanwhile
            answered.append(ray.get(answer))
    return answered


def _here() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())
