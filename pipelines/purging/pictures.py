"""A published model without its pictures: the weights stay, and the manifest says what was taken."""

from __future__ import annotations

import json
import re

from pipelines.dag.artifact import MANIFEST, Artifact, digest_of
from pipelines.stages.publish import PICTURES, REPORT_FILE

CARD = "README.md"
_PICTURE = re.compile(r"^!\[[^\n]*\]\([^\n)]*\)\n+", re.MULTILINE)


def pictures_of(model: Artifact) -> list[str]:
    """Files of a published model that show pictures."""
    names = set(model.folder.sizes()) | set(model.manifest["files"])
    return sorted(name for name in names if name == REPORT_FILE or name.startswith(f"{PICTURES}/"))


def remove_pictures(model: Artifact) -> None:
    """Take the pictures and the report out of a published model, and their links out of its card.

    The manifest goes first and the pictures last: wherever this ends early, they are found again.
    """
    gone = pictures_of(model)
    manifest = dict(model.manifest)
    files = {name: entry for name, entry in manifest["files"].items() if name not in gone}
    if CARD in files:
        card = _PICTURE.sub("", model.folder.read_bytes(CARD).decode())
        with model.folder.create(CARD) as file:
            file.write(card.encode())
        files[CARD] = {"size": file.size, "sha256": file.sha256}
    manifest |= {"files": files, "digest": digest_of(files), "purged": gone}
    model.folder.write_bytes(MANIFEST, (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode())
    for name in gone:
        model.folder.remove(name)
