"""Which layout a folder of pictures has, and how each one is listed and read."""

from __future__ import annotations

import os
from pathlib import Path

from pipelines.dag.reference import find
from pipelines.sources import folder, parquet, webdataset
from pipelines.sources.source import Read, Source

LISTED: dict[str, type[Source]] = {
    "folder": folder.FolderSource,
    "parquet": parquet.ParquetSource,
    "webdataset": webdataset.WebDatasetSource,
}
READ: dict[str, Read] = {"folder": folder.read, "parquet": parquet.read, "webdataset": webdataset.read}


def open_source(folder: str, layout: str = "auto") -> Source:
    """List a folder of pictures, of parquet files or of tars.

    Args:
        folder: The folder.
        layout: One of `LISTED`, or "auto".

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It holds nothing of that layout, or is damaged beyond listing.
    """
    root = find(folder)
    if root is None or not root.is_dir():
        raise FileNotFoundError(
            f"there is no folder {folder!r}; set import_images.folder to one with pictures"
        )
    return LISTED[layout_of(root) if layout == "auto" else layout](root)


def layout_of(root: Path) -> str:
    """Tell the layout: tars make a WebDataset, else parquet files are read, else picture files."""
    found = set()
    for _, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found |= {os.path.splitext(name)[1].lower() for name in files if not name.startswith(".")}
    if ".tar" in found:
        return "webdataset"
    return "parquet" if ".parquet" in found else "folder"
