"""What other packages bring, by entry points; this one knows none of them by name.

    [project.entry-points."reptok.sources"]     name = "package.module:SOURCE"
    [project.entry-points."reptok.workflows"]   name = "package.module:WORKFLOW"
    [project.entry-points."reptok.filters"]     name = "package.module:Class"

A source or workflow has a key of the configuration with a dataclass of its own for it, and may bring a folder
of YAML, which joins `conf/` on Hydra's search path. Its stages take part where an artifact that they make is
referred to. A filter is a dataclass itself (`pipelines/filters/filter.py`), at `data.filter_images.name`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from pipelines.dag.artifact import Artifact
from pipelines.dag.shards import ShardJob
from pipelines.dag.stage import Stage
from pipelines.filters.filter import Filter

SOURCES, WORKFLOWS, FILTERS = "reptok.sources", "reptok.workflows", "reptok.filters"
FILTER_KEYS = "data.filter_images"


@dataclass(frozen=True, kw_only=True)
class Source:
    """Pictures, with URLs or in a folder.

    Attributes:
        key: Where its configuration stands, such as "data.mine"; one that is not null chooses it.
        config: The dataclass of its configuration.
        stages: What it can make; stages whose artifacts are referred to take part.
        classes: How many classes its pictures have.
        tables: Its list of URLs, made in memory: names of files and tables.
        served: The kind of artifact that holds its web, where its URLs lead nowhere else.
        serve: A download (`crawl.guarded.GuardedDownload`) whose workers serve that artifact to themselves.
        accounting: From a download's stats: outcome, how often the web answered so, and rows that ended so.
        conf: Folder of YAML.
    """

    key: str
    config: type
    stages: Callable[[Any], list[Stage]]
    classes: Callable[[Any], int]
    tables: Callable[[Any], Iterable[tuple[str, Any]]]
    served: str = ""
    serve: Callable[[Any, Artifact], ShardJob] | None = None
    accounting: Callable[[Mapping[str, float]], Sequence[tuple[str, int, int]]] | None = None
    conf: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Workflow:
    """A set of stages.

    Attributes:
        key: Where its configuration stands.
        config: The dataclass of its configuration; it needs no value.
        build: The stages, from the whole configuration and its own.
        stages: What it can make besides, from its own; stages whose artifacts are referred to take part.
        conf: Folder of YAML.
    """

    key: str
    config: type
    build: Callable[[Any, Any], list[Stage]]
    stages: Callable[[Any], list[Stage]]
    conf: Path | None = None


@cache
def sources() -> dict[str, Source]:
    """The sources that are installed, by name."""
    return {entry.name: entry.load() for entry in sorted(entry_points(group=SOURCES))}


@cache
def workflows() -> dict[str, Workflow]:
    """The workflows that are installed, by name."""
    return {entry.name: entry.load() for entry in sorted(entry_points(group=WORKFLOWS))}


@cache
def filters() -> dict[str, type[Filter]]:
    """The filters that are installed, by the keys of their configuration."""
    found = sorted(entry_points(group=FILTERS))
    return {f"{FILTER_KEYS}.{entry.name}": entry.load() for entry in found}


def chosen_filters(extras: Mapping[str, Any]) -> dict[str, Filter]:
    """The installed filters that a configuration chooses, by name."""
    return {key.rpartition(".")[2]: extras[key] for key in filters() if extras.get(key) is not None}


def source(name: str, key: str) -> Source:
    """The source of a name.

    Raises:
        ValueError: None is installed under it.
    """
    if name not in sources():
        raise ValueError(
            f"{key}={name}: no source of that name is installed; there are: {', '.join(sources()) or 'none'} "
            "(after a change of pyproject.toml: pip install --no-deps -e .)"
        )
    return sources()[name]


def plugins() -> list[Source | Workflow]:
    """All of both kinds."""
    return [*sources().values(), *workflows().values()]


def chosen(extras: Mapping[str, Any]) -> Source | None:
    """The source that a configuration chooses; None if it chooses none of these."""
    return next((found for found in sources().values() if extras.get(found.key) is not None), None)


def with_makers(stages: Sequence[Stage], extras: Mapping[str, Any]) -> list[Stage]:
    """Stages, and before them those of plug-ins that make what they read and none of them makes."""
    offers: list[Stage] = []
    for plugin in plugins():
        settings = extras.get(plugin.key)
        if settings is None and isinstance(plugin, Workflow):
            settings = plugin.config()
        offers += plugin.stages(settings) if settings is not None else []
    makers = {stage.output: stage for stage in offers}
    found = list(stages)
    made = {stage.output for stage in found}
    for stage in found:  # it grows meanwhile: makers have inputs, too
        for kind in stage.inputs:
            if kind not in made and kind in makers:
                found.append(makers[kind])
                made.add(kind)
    return found
