"""Which layout a folder of pictures has, and how each one is listed and read."""

from __future__ import annotations

import os
from pathlib import Path

from pipelines.dag.reference import find
from pipelines.sources import folder, hub, parquet, webdataset
from pipelines.sources.captions import CaptionsConfig
from pipelines.sources.source import Read, Source, walk

LISTED: dict[str, type[Source]] = {
    "folder": folder.FolderSource,
    "parquet": parquet.ParquetSource,
    "webdataset": webdataset.WebDatasetSource,
}
READ: dict[str, Read] = {"folder": folder.read, "parquet": parquet.read, "webdataset": webdataset.read}


def open_source(place: str, layout: str = "auto", captions: CaptionsConfig | None = None) -> Source:
    """List a folder of pictures, of parquet files or of tars.

    Args:
        place: The folder, or a dataset of the hub, which is fetched.
        layout: One of `LISTED`, or "auto".
        captions: Where captions stand.

    Raises:
        FileNotFoundError: There is no such folder.
        OSError: The hub cannot be reached.
        ValueError: It holds nothing of that layout, or is damaged beyond listing.
    """
    root = hub.fetched(place) if hub.is_hub(place) else find(place)
    if root is None or not root.is_dir():
        raise FileNotFoundError(f"there is no folder {place!r}; set data.folder to one with pictures")
    captions = captions or CaptionsConfig()
    key = captions.join.sample_key if captions.join else ""
    return LISTED[layout_of(root) if layout == "auto" else layout](root, captions.fields, key)


def layout_of(root: Path) -> str:
    """Tell the layout: tars make a WebDataset, else parquet files are read, else picture files."""
    found = set()
    for _, _, files in walk(root, []):  # the source tells the faults
        found |= {os.path.splitext(name)[1].lower() for name in files}
    if ".tar" in found:
        return "webdataset"
    return "parquet" if ".parquet" in found else "folder"
