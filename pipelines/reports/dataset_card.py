"""The card of a dataset for people, and its Croissant metadata for machines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pyarrow.parquet as pq

from pipelines.dag.artifact import Artifact
from pipelines.reports.lineage import Step, lineage
from pipelines.reports.report import environment
from reptok.data.croissant import DatasetFacts, croissant
from reptok.data.index import INDEX, parse_index

SOURCES = (("select_urls", "sources"), ("import_images", "folder"))
"""Stages that read what came from elsewhere, and the setting that names it."""
CAPTION, CAPTION_COUNT = "caption", "caption_"


def dataset_card(dataset: Artifact, facts: DatasetFacts) -> dict[str, bytes]:
    """Return `README.md` and `croissant.json` of a dataset, by name."""
    index = parse_index(dataset.read_bytes(INDEX))
    created = str(dataset.manifest.get("created", ""))[:10]
    facts = replace(facts, published=facts.published or created)
    splits = [
        {
            "name": split,
            "rows": sum(entry.rows for entry in entries),
            "shards": len(entries),
            "bytes": sum(entry.bytes for entry in entries),
        }
        for split, entries in index.splits.items()
    ]
    steps = lineage([dataset])
    card = (
        environment()
        .get_template("dataset_card.md.j2")
        .render(
            facts=facts,
            splits=splits,
            image_size=index.image_size,
            classes=len(index.class_names or ()),
            fingerprint=dataset.fingerprint,
            sources=list(_sources(steps)),
            steps=[step for step in steps if step.rows_in is not None],
            filters=_filters(steps),
            captions=_captions(steps),
        )
    )
    with dataset.open(f"{index.shards[0][1].shard}.parquet") as file:
        columns = pq.read_schema(file)
    described = croissant(index, dataset.manifest["files"][INDEX], columns, facts)
    text = json.dumps(described, indent=1, ensure_ascii=False) + "\n"
    return {"README.md": card.encode(), "croissant.json": text.encode()}


def _sources(steps: list[Step]) -> Iterator[str]:
    for step in steps:
        for stage, setting in SOURCES:
            named = step.config.get(setting) if isinstance(step.config, Mapping) else None
            if step.stage == stage and named:
                yield ", ".join(named) if isinstance(named, list) else str(named)


def _filters(steps: list[Step]) -> dict[str, str]:
    """The filters that looked, with their settings."""
    found: Mapping[str, Any] = next((s.config["filters"] for s in steps if s.stage == "filter_images"), {})
    return {
        name: ", ".join(f"{key} {value}" for key, value in settings.items() if not isinstance(value, dict))
        for name, settings in found.items()
    }


def _captions(steps: list[Step]) -> dict[str, int]:
    """Captions by whose they are."""
    stats = next((step.stats for step in steps if step.stage == CAPTION), {})
    return {
        name.removeprefix(CAPTION_COUNT).replace("_", "-"): int(count)
        for name, count in stats.items()
        if name.startswith(CAPTION_COUNT) and count
    }
