"""Datasets of the model hub as a source: `hf://datasets/owner/name[@revision][/folder]`.

Their files are fetched into the hub's cache (HF_HOME), once, and read there as any folder is. A revision that
has slashes is written with %2F: `@refs%2Fconvert%2Fparquet` is the hub's own conversion to parquet files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from pipelines.sources.folder import EXTENSIONS

PREFIX = "hf://"
_PLACE = re.compile(r"hf://datasets/(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/]+))?(?:/(?P<inside>.+))?")
READ = (*EXTENSIONS, ".parquet", ".tar", ".txt", ".json", ".jsonl", ".csv")
"""Extensions of what is fetched."""


@dataclass(frozen=True)
class HubDataset:
    """Owner and name, branch or tag or commit (None for the newest), and the folder inside."""

    name: str
    revision: str | None
    inside: str


def is_hub(place: str) -> bool:
    """Whether a place is one of the hub's."""
    return place.startswith(PREFIX)


def parse(place: str) -> HubDataset:
    """Read `hf://datasets/owner/name@revision/folder`.

    Raises:
        ValueError: It is none.
    """
    found = _PLACE.fullmatch(place)
    if found is None:
        raise ValueError(
            f"data.folder={place}: a dataset of the hub is hf://datasets/owner/name[@revision][/folder]"
        )
    revision = unquote(found["revision"]) if found["revision"] else None
    return HubDataset(found["name"], revision, (found["inside"] or "").strip("/"))


def fetched(place: str) -> Path:
    """Fetch a dataset's files, as far as pictures, tables and captions go, and return their folder.

    Raises:
        OSError: The hub cannot be reached, or has no such dataset.
        ValueError: The place is not well formed.
    """
    from huggingface_hub import snapshot_download

    dataset = parse(place)
    below = f"{dataset.inside}/" if dataset.inside else ""
    patterns = [f"{below}*{extension}" for extension in READ]
    try:
        folder = snapshot_download(
            dataset.name, repo_type="dataset", revision=dataset.revision, allow_patterns=patterns
        )
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise OSError(
            f"data.folder={place} means a dataset of the hub, which cannot be fetched ({reason}); fetch it "
            "where there is a network, or set data.folder to its folder"
        ) from error
    return Path(folder, dataset.inside)
