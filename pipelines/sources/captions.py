"""Where the captions of a source stand: beside its pictures, in columns or fields, or in another table."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.sources.source import TEXT_FIELDS


@dataclass(frozen=True, kw_only=True)
class JoinConfig:
    """Another table with captions, and what its rows have in common with the samples.

    A sample of a folder is known by its path, with or without the extension; one of a WebDataset by its key;
    one of a list by its URL; a row of a parquet file by the column `sample_key`.

    Attributes:
        table: Files, folders or globs of parquet, CSV or JSON lines, by any URL of fsspec.
        key: Column of the table that names the sample.
        text: Column of the table with the caption.
        sample_key: Column of the source's own parquet files with the same name of the sample.
        listing: Sizes and times of those files; the stage fills it in.
    """

    table: tuple[str, ...]
    key: str = "key"
    text: str = "caption"
    sample_key: str = ""
    listing: str = ""

    def __post_init__(self) -> None:
        if not self.table or not self.key or not self.text:
            raise ValueError("captions.join needs a table, and the names of its columns key and text")


@dataclass(frozen=True, kw_only=True)
class CaptionsConfig:
    """Where the captions of a source stand.

    Attributes:
        fields: Columns of parquet files and of metadata, or fields of JSON, that may hold a sample's caption;
            "txt" is the text file beside it. The first that has a text counts.
        join: Another table to take captions from; a sample that it lacks keeps its own.
    """

    fields: tuple[str, ...] = TEXT_FIELDS
    join: JoinConfig | None = None

    def __post_init__(self) -> None:
        if not self.fields:
            raise ValueError(
                "captions.fields names no field; for pictures without captions choose a captioner"
            )
