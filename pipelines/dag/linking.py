"""A file of one artifact in another as well, without reading it: a hard link, or a copy made by the store."""

from __future__ import annotations

import os
import shutil
import uuid
from typing import Any, cast

from pipelines.dag.object_store import ObjectFolder
from pipelines.dag.storage import TEMPORARY_SUFFIX, Folder, LocalFolder


def link(source: Folder, name: str, target: Folder, named: str) -> None:
    """Let `target` have a file of `source`, which neither of them changes; one that is there is replaced.

    Raises:
        FileNotFoundError: The source has no such file.
        OSError: It cannot be written.
    """
    if isinstance(source, LocalFolder) and isinstance(target, LocalFolder):
        path = target.path(named)
        os.makedirs(path.parent, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}{TEMPORARY_SUFFIX}")
        try:
            os.link(source.path(name), temporary)
        except FileNotFoundError:
            raise
        except OSError:  # another disk, or a file system without links
            _copy(source, name, target, named)
            return
        os.replace(temporary, path)
        return
    if isinstance(source, ObjectFolder) and isinstance(target, ObjectFolder):
        target.take(source, name, named)
    else:
        _copy(source, name, target, named)


def _copy(source: Folder, name: str, target: Folder, named: str) -> None:
    with source.open(name) as file, target.create(named) as copy:
        shutil.copyfileobj(file, cast(Any, copy), 1 << 20)
