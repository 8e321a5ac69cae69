"""What follows from where the pictures come from: their classes, their captions, and what is missing.

A folder is listed once, when the configuration is composed; nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from pipelines import registry
from pipelines.configuration.compose import CONF_DIR, dotted, put
from pipelines.configuration.construct import ConfigError, construct
from pipelines.configuration.follows import follows
from pipelines.dag.reference import ARTIFACT, find
from pipelines.sources import hub
from pipelines.sources.captions import CaptionsConfig
from pipelines.sources.layouts import open_source
from pipelines.sources.source import Source
from pipelines.urls.classes import count_classes

MIN_PICTURES = 8
"""With fewer nothing would be left to train on beside what validates."""


@dataclass(kw_only=True)
class Chosen:
    """The source of a configuration.

    Attributes:
        place: `data.folder`; "" for URLs.
        named: The key and value that choose it, for messages.
        classes: How many classes its pictures have, None where only reading tells.
        notes: Sentences about it.
    """

    place: str = ""
    named: str = ""
    classes: int | None = None
    notes: list[str] = field(default_factory=list)


def derive(values: dict[str, Any], extras: Mapping[str, Any]) -> Chosen:
    """Settle what follows from the source, and refuse what it cannot give.

    Raises:
        ConfigError: There are two sources or none, or it lacks the captions or classes that the generator's
            condition asks for; says what would give them.
    """
    place, lists = dotted(values, "data.folder") or "", dotted(values, "data.select_urls.sources")
    condition = values["generator"].get("condition")
    if place and lists:
        raise ConfigError(
            f"data.folder={place} and data.select_urls.sources={lists} are two sources; choose one, such as "
            "data=folder data.folder=... for the folder alone"
        )
    if not place and not lists:
        raise ConfigError(
            "the data name no source: give data.folder=<a folder of pictures, parquet files or tars, or "
            f"hf://datasets/owner/name>, or choose one of data={choices('data')}"
        )
    follows(values, "data.import_images.folder", place, "data.folder")
    if parts := dotted(values, "data.parts"):
        if place:
            raise ConfigError(
                f"data.parts={parts} are lists of URLs beside data.select_urls.sources, and "
                f"data.folder={place} is a folder; put the pictures that came later into it"
            )
        follows(values, "data.select_urls.parts", parts, "data.parts")
    if lists:
        return _urls(lists, parts or {}, condition, extras)
    named = f"data.folder={place}"
    if place.startswith(ARTIFACT):
        return Chosen(place=place, named=named)
    if hub.is_hub(place):
        try:
            hub.parse(place)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return Chosen(place=place, named=named)
    if condition == "class" and dotted(values, "generator.num_classes") and find(place) is None:
        return Chosen(
            place=place, named=named
        )  # sizes follow without the pictures; building stages needs them
    captions = construct(CaptionsConfig, dotted(values, "data.captions") or {}, "data.captions")
    source = open_source(place, dotted(values, "data.import_images.layout") or "auto", captions)
    put(values, "data.import_images.listing", source.digest())
    _enough(source, named)
    if source.rows is not None and values.get("estimate"):
        values["estimate"]["rows"] = source.rows
    described = dotted(values, "captioner.model") is not None or captions.join is not None
    if condition == "text" and not described:
        _captioned(source, named)
    if condition == "class" and source.num_classes == 0:
        raise ConfigError(
            f"generator.condition=class, and {named} has no classes: put the pictures into one folder per "
            "class, or choose a generator by text, such as generator=mixer_text_tiny"
        )
    return Chosen(place=place, named=named, classes=source.num_classes, notes=[_said(source, named)])


def choices(group: str) -> str:
    """What may be chosen of a group, those of installed plug-ins included."""
    return "|".join(sorted({file.stem for file in _files(group)}))


def _files(group: str) -> list[Path]:
    folders = [CONF_DIR, *(plugin.conf for plugin in registry.plugins() if plugin.conf)]
    return [file for folder in folders for file in folder.glob(f"{group}/*.yaml")]


def _captioners() -> str:
    """Captioners that look at pictures; not those that a stage of a plug-in makes."""
    found = {file.stem for file in _files("captioner") if ARTIFACT not in file.read_text(encoding="utf-8")}
    return "|".join(sorted(found - {"source"}))


def _urls(lists: Any, parts: Mapping[str, Any], condition: str | None, extras: Mapping[str, Any]) -> Chosen:
    named = f"data.select_urls.sources={list(lists)}"
    plugin = registry.chosen(extras)
    if condition != "class" or plugin is not None:
        return Chosen(named=named)
    try:
        return Chosen(named=named, classes=count_classes([*lists, *chain(*parts.values())]))
    except (OSError, ValueError) as error:
        raise ConfigError(f"generator.condition=class, and {named}: {error}") from error


def _enough(source: Source, named: str) -> None:
    if source.rows is not None and source.rows < MIN_PICTURES:
        raise ConfigError(
            f"{named} has {source.rows} pictures, and {MIN_PICTURES} are the least of which some can train "
            "and some validate; add more"
        )


def _captioned(source: Source, named: str) -> None:
    if source.captioned == 0 and not source.num_classes:
        looked = ", ".join(source.fields)
        raise ConfigError(
            f"generator.condition=text, and nothing in {named} is captioned (looked for {looked}): put a "
            ".txt beside each picture, name the columns (data.captions.fields) or another table "
            f"(data.captions.join), let a captioner describe them (captioner={_captioners()}), or choose "
            "a generator by class, such as generator=mixer_class_tiny"
        )


def _said(source: Source, named: str) -> str:
    """What listing tells: rows, captions, classes."""
    parts = [] if source.rows is None else [f"{source.rows:,} pictures"]
    if source.rows is not None and source.captioned is not None:
        parts.append(f"{source.captioned:,} with a caption" if source.captioned else "no captions")
    if source.num_classes:
        parts.append(f"{source.num_classes:,} classes")
    return f"{named}: {', '.join(parts) or 'counted when it is read'}"
