"""Croissant metadata against what its specification (1.0) asks for, and against the files that it names."""

import json
from fnmatch import fnmatch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reptok.data.croissant import DatasetFacts, croissant
from reptok.data.index import parse_index

FACTS = DatasetFacts(
    name="four-colours", description="Squares.", license="https://creativecommons.org/publicdomain/zero/1.0/",
    url="https://example.org/", creator="Somebody", published="2026-11-29", version="1.0.0",
)  # fmt: skip
REQUIRED = {"@context", "@type", "conformsTo", "name", "description", "license", "url", "creator",
            "datePublished", "distribution"}  # fmt: skip
TYPES = {"sc:Text", "sc:Integer", "sc:Float", "sc:ImageObject"}


@pytest.fixture
def described(small_dataset, tmp_path):
    """The metadata of a small dataset, through JSON, and its folder."""
    folder = small_dataset.write_dataset(tmp_path / "dataset")
    index = parse_index((folder / "index.json").read_bytes())
    columns = pq.read_schema(folder / "train-00000.parquet").append(pa.field("clip_similarity", pa.float64()))
    entry = {"size": 123, "sha256": "ab" * 32}
    return json.loads(json.dumps(croissant(index, entry, columns, FACTS))), folder


def nodes(value):
    """Every JSON object."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    for part in value if isinstance(value, list) else []:
        yield from nodes(part)


def test_what_the_specification_requires_is_there(described):
    metadata, _ = described
    assert metadata.keys() >= REQUIRED
    assert (
        metadata["@type"] == "sc:Dataset" and metadata["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    )
    context = metadata["@context"]
    assert context["@vocab"] == context["sc"] == "https://schema.org/"
    assert context["cr"] == "http://mlcommons.org/croissant/" and context["conformsTo"] == "dct:conformsTo"
    for kind, needed in {
        "cr:FileObject": {"@id", "name", "contentUrl", "contentSize", "encodingFormat", "sha256"},
        "cr:FileSet": {"@id", "name", "encodingFormat", "includes"},
        "cr:RecordSet": {"@id", "name", "key", "field"},
        "cr:Field": {"@id", "name", "dataType", "source"},
    }.items():
        found = [node for node in nodes(metadata) if node.get("@type") == kind]
        assert found and all(node.keys() >= needed for node in found), kind


def test_identifiers_are_unique_and_references_lead_somewhere(described):
    metadata, _ = described
    body = {name: value for name, value in metadata.items() if name != "@context"}
    named = [node["@id"] for node in nodes(body) if "@id" in node and "@type" in node]
    assert len(named) == len(set(named))
    references = [node["@id"] for node in nodes(body) if set(node) == {"@id"}]
    assert references and set(references) <= set(named)
    for node in nodes(body):
        if node.get("@type") == "cr:Field":
            assert node["dataType"] in TYPES


def test_terms_of_croissant_are_told_from_those_of_schema_org(described):
    """A term that the context does not know would be taken for one of schema.org."""
    metadata, _ = described
    schema_org = set(
        [
            "name",
            "description",
            "license",
            "url",
            "creator",
            "datePublished",
            "version",
            "distribution",
            "contentUrl",
            "contentSize",
            "encodingFormat",
            "sha256",
            "containedIn",
        ]
    )
    body = {name: value for name, value in metadata.items() if name != "@context"}
    used = {name for node in nodes(body) for name in node if not name.startswith("@")}
    assert used - schema_org <= metadata["@context"].keys()
    assert not schema_org & metadata["@context"].keys()


def test_patterns_and_columns_are_those_of_the_files(described):
    metadata, folder = described
    sets = {node["@id"]: node["includes"] for node in metadata["distribution"] if "includes" in node}
    files = [path.name for path in folder.iterdir()]
    for kind, suffix in (("tables", "parquet"), ("shards", "tar")):
        matched = {name for name in files if any(fnmatch(name, pattern) for pattern in sets[kind])}
        assert matched == {name for name in files if name.endswith(suffix)} and len(matched) == 3
    (samples, images) = metadata["recordSet"]
    types = {field["source"]["extract"]["column"]: field["dataType"] for field in samples["field"]}
    assert types == {
        "key": "sc:Text", "caption": "sc:Text", "label": "sc:Integer", "subject": "sc:Text",
        "width": "sc:Integer", "height": "sc:Integer", "clip_similarity": "sc:Float",
    }  # fmt: skip
    assert [field["name"] for field in images["field"]] == ["key", "content"]


def test_what_nobody_said_is_left_out(small_dataset, tmp_path):
    folder = small_dataset.write_dataset(tmp_path / "dataset")
    index = parse_index((folder / "index.json").read_bytes())
    columns = pq.read_schema(folder / "train-00000.parquet")
    metadata = croissant(index, {"size": 1, "sha256": ""}, columns, DatasetFacts())
    assert not {"license", "url", "creator", "datePublished"} & metadata.keys()
