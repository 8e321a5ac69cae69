"""The order of stages, from the names of the artifacts that they read and make."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from graphlib import CycleError, TopologicalSorter

from pipelines.dag.stage import Stage


class GraphError(ValueError):
    """The stages do not form a workflow; the message names the stages and artifacts."""


def ordered(stages: Iterable[Stage]) -> list[Stage]:
    """The stages in an order in which every input is made before it is read.

    Raises:
        GraphError: an artifact has no producer or two, two stages share a name, or they wait for each other.
    """
    stages = list(stages)
    by_name: dict[str, Stage] = {}
    makers: dict[str, Stage] = {}
    for stage in stages:
        if stage.name in by_name:
            raise GraphError(f"two stages are called {stage.name}")
        by_name[stage.name] = stage
        if stage.output in makers:
            raise GraphError(f"both {makers[stage.output].name} and {stage.name} make {stage.output}")
        makers[stage.output] = stage
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for stage in stages:
        for kind in stage.inputs:
            if kind not in makers:
                raise GraphError(f"{stage.name} reads {kind}, which no stage of this workflow makes")
        sorter.add(stage.name, *(makers[kind].name for kind in stage.inputs))
    try:
        return [by_name[name] for name in sorter.static_order()]
    except CycleError as error:
        raise GraphError(f"stages wait for each other: {' -> '.join(reversed(error.args[1]))}") from None


def with_ancestors(stages: Sequence[Stage], name: str) -> set[str]:
    """Names of a stage and of all stages it depends on."""
    makers = {stage.output: stage for stage in stages}
    pending, found = [named(stages, name)], set()
    while pending:
        stage = pending.pop()
        if stage.name not in found:
            found.add(stage.name)
            pending += [makers[kind] for kind in stage.inputs]
    return found


def named(stages: Sequence[Stage], name: str) -> Stage:
    """The stage of that name, or GraphError naming the nearest one."""
    names = [stage.name for stage in stages]
    if name in names:
        return stages[names.index(name)]
    near = get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}?" if near else "there are: " + ", ".join(names)
    raise GraphError(f"this workflow has no stage {name!r}; {hint}")
