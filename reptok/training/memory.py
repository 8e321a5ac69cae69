"""What held memory in a profiled window: how much was allocated when, and by whom at the peak."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from torch.profiler import profile

POINTS = 2000
"""Of the time line, at most."""
HOLDERS = 40
"""At the peak, at most."""


def snapshot(found: profile, device: torch.device) -> dict[str, Any]:
    """Reduce a profile with `profile_memory` and `with_stack` to what is worth keeping.

    Only what was allocated within the window is known; weights, moments and the average were there before.

    Returns:
        "device"; "peak_bytes" over the beginning and "peak_ms", when; "timeline", [milliseconds, bytes]
        pairs; "holders" of the peak, the largest first, each {"bytes", "count", "module", "operation",
        "function"}.
    """
    assert found.profiler is not None and found.profiler.kineto_results is not None
    roots = found.profiler.kineto_results.experimental_event_tree()
    events = sorted(_allocations(roots, device.type), key=lambda event: event[0])
    if not events:
        return {"device": device.type, "peak_bytes": 0, "peak_ms": 0.0, "timeline": [], "holders": []}
    begun, held, line = events[0][0], 0, []
    for at, size, _, _ in events:
        held += size
        line.append([(at - begun) / 1e6, held])
    peak = max(range(len(line)), key=lambda number: line[number][1])
    every = -(-len(line) // POINTS)
    kept = [point for number, point in enumerate(line) if number % every == 0 or number == peak]
    return {
        "device": device.type,
        "peak_bytes": line[peak][1],
        "peak_ms": line[peak][0],
        "timeline": kept,
        "holders": _holders(events[: peak + 1]),
    }


Allocation = tuple[int, int, int, tuple[str, str, str]]
"""Nanoseconds, bytes (negative where they are given back), address, and who: module, operation, function."""


def _holders(events: list[Allocation]) -> list[dict[str, Any]]:
    """Group what is alive after some events by who allocated it."""
    alive: dict[int, tuple[int, tuple[str, str, str]]] = {}
    for _, size, address, who in events:
        if size > 0:
            alive[address] = (size, who)
        else:
            alive.pop(address, None)
    sums: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0, 0])
    for size, who in alive.values():
        sums[who][0] += size
        sums[who][1] += 1
    largest = sorted(sums.items(), key=lambda item: -item[1][0])[:HOLDERS]
    return [
        {"bytes": size, "count": n, "module": module, "operation": operation, "function": function}
        for (module, operation, function), (size, n) in largest
    ]


def _allocations(roots: list[Any], device: str) -> Iterator[Allocation]:
    """Every allocation below some nodes of a profile's tree."""
    waiting = [(root, ("", "", "")) for root in roots]
    while waiting:
        node, who = waiting.pop()
        kind = node.tag.name
        if kind == "Allocation":
            fields = node.extra_fields
            if str(fields.device).partition(":")[0] == device:
                yield node.start_time_ns, fields.alloc_size, fields.ptr, who
        elif kind == "TorchOp":
            who = (who[0], node.name, who[2])
        elif kind == "PyCall" and node.name.startswith("nn.Module: "):
            who = (node.name.removeprefix("nn.Module: "), who[1], who[2])
        elif kind == "PyCall" and "/torch/" not in node.name and not node.name.startswith(("torch/", "<")):
            who = (*who[:2], node.name)
        waiting += [(child, who) for child in node.children]
