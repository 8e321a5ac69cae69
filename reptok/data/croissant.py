"""A dataset's description as Croissant 1.0 metadata (JSON-LD), which search engines and loaders read.

Specification: https://docs.mlcommons.org/croissant/docs/croissant-spec.html. The shards are named by
patterns, and their checksums stand in `index.json`, whose own checksum stands here: thousands of shards stay
one small file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from reptok.data.columns import SAMPLES
from reptok.data.index import INDEX, DatasetIndex

CROISSANT = "croissant.json"
VERSION = "http://mlcommons.org/croissant/1.0"
_TERMS = (
    "citeAs", "column", "extract", "field", "fileProperty", "fileObject", "fileSet", "format", "includes",
    "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex",
    "repeated", "replace", "separator", "source", "subField", "transform",
)  # fmt: skip
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in _TERMS},
}
MEANINGS = {
    "key": "Names the sample; unique in the dataset.",
    "caption": "What the picture shows, in words.",
    "label": "Number of its class.",
    "subject": "Name of its class.",
    "width": "Pixels.",
    "height": "Pixels.",
}


@dataclass(frozen=True, kw_only=True)
class DatasetFacts:
    """What only people know of a dataset; what is "" is left out.

    Attributes:
        name: Of the dataset.
        description: What it holds, in a sentence or two.
        license: URL of its licence.
        url: Its page.
        creator: Who made it.
        published: Date, YYYY-MM-DD; by default the day on which the dataset was made.
        version: MAJOR.MINOR.PATCH.
    """

    name: str = "reptok-dataset"
    description: str = "Pictures with captions, all of one size."
    license: str = ""
    url: str = ""
    creator: str = ""
    published: str = ""
    version: str = "1.0.0"


def croissant(
    index: DatasetIndex, index_file: Mapping[str, Any], columns: pa.Schema, facts: DatasetFacts
) -> dict[str, Any]:
    """Describe a dataset.

    Args:
        index: Its index.
        index_file: `size` and `sha256` of the index's file.
        columns: Of the tables beside the shards.
        facts: What is known besides.
    """
    known = {
        "license": facts.license,
        "url": facts.url,
        "creator": facts.creator and {"@type": "sc:Organization", "name": facts.creator},
        "datePublished": facts.published,
        "version": facts.version,
    }
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": facts.name,
        "conformsTo": VERSION,
        "description": facts.description,
        **{name: value for name, value in known.items() if value},
        "distribution": _distribution(list(index.splits), index_file),
        "recordSet": [_samples(columns), _pictures()],
    }


def _distribution(splits: Sequence[str], index_file: Mapping[str, Any]) -> list[dict[str, Any]]:
    def files(kind: str, suffix: str, mime: str, about: str) -> dict[str, Any]:
        patterns = [f"{split}-*.{suffix}" for split in splits]
        return {
            "@type": "cr:FileSet", "@id": kind, "name": kind, "description": about, "encodingFormat": mime,
            "includes": patterns,
        }  # fmt: skip

    return [
        {
            "@type": "cr:FileObject",
            "@id": INDEX,
            "name": INDEX,
            "description": "Splits and shards with the rows, bytes and SHA-256 of each.",
            "contentUrl": INDEX,
            "contentSize": f"{index_file['size']} B",
            "encodingFormat": "application/json",
            "sha256": index_file["sha256"],
        },
        files("tables", "parquet", "application/x-parquet", "The samples of each shard without pixels."),
        files("shards", "tar", "application/x-tar", "WebDataset: {key}.jpg, {key}.txt, {key}.json."),
        {
            "@type": "cr:FileSet",
            "@id": "pictures",
            "name": "pictures",
            "description": "The pictures in the shards.",
            "containedIn": {"@id": "shards"},
            "encodingFormat": "image/jpeg",
            "includes": "*.jpg",
        },
    ]


def _samples(columns: pa.Schema) -> dict[str, Any]:
    def fields() -> Iterator[dict[str, Any]]:
        for column in columns:
            score = "What a filter gave it, from the picture that came."
            yield {
                "@type": "cr:Field",
                "@id": f"samples/{column.name}",
                "name": column.name,
                "description": MEANINGS.get(column.name, score),
                "dataType": _type(column.type),
                "source": {"fileSet": {"@id": "tables"}, "extract": {"column": column.name}},
            }

    return {
        "@type": "cr:RecordSet",
        "@id": "samples",
        "name": "samples",
        "description": "One record per sample; its picture has the same key.",
        "key": {"@id": f"samples/{SAMPLES.names[0]}"},
        "field": list(fields()),
    }


def _pictures() -> dict[str, Any]:
    source = {"fileSet": {"@id": "pictures"}}
    named = {"extract": {"fileProperty": "filename"}, "transform": {"regex": r"([^\/]*)\.jpg"}}
    return {
        "@type": "cr:RecordSet",
        "@id": "images",
        "name": "images",
        "description": "The pictures by key.",
        "key": {"@id": "images/key"},
        "field": [
            {
                "@type": "cr:Field",
                "@id": "images/key",
                "name": "key",
                "description": MEANINGS["key"],
                "dataType": "sc:Text",
                "references": {"field": {"@id": "samples/key"}},
                "source": {**source, **named},
            },
            {
                "@type": "cr:Field",
                "@id": "images/content",
                "name": "content",
                "description": "The picture.",
                "dataType": "sc:ImageObject",
                "source": {**source, "extract": {"fileProperty": "content"}},
            },
        ],
    }


def _type(kind: pa.DataType) -> str:
    if pa.types.is_integer(kind):
        return "sc:Integer"
    return "sc:Float" if pa.types.is_floating(kind) else "sc:Text"
