"""What earlier artifacts of a kind have of the shards that are to be done, so that it need not be made again.

A published artifact of shards has beside its manifest

    made.json    {settings, rest, shards: [{of, rest, name, rows, stats, files, summaries, named}]}

`settings` stands for the stage, its version and what is significant of its configuration, `rest` for those of
its inputs, such as a network, that are the same for all shards, `of` for these and for everything else that a
shard was made of: the bytes of its inputs. A shard that is made of the same is not made: its files are
linked. Of one that is made of something else, the job may take rows over, if settings and rest are the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from pipelines.dag.artifact import MANIFEST, Artifact
from pipelines.dag.coming import Coming
from pipelines.dag.fingerprint import canonical_json, plain
from pipelines.dag.linking import link
from pipelines.dag.shard_records import Record
from pipelines.dag.storage import open_folder
from pipelines.dag.wanted import place_of
from pipelines.dag.workspace import MADE, SCRATCH, Workspace

if TYPE_CHECKING:
    from pipelines.dag.shards import Shard, ShardJob
    from pipelines.dag.stage import Stage

ASKED = f"{SCRATCH}/shards/earlier.json"
MOST = 8
"""Earlier artifacts that are looked at, the newest ones."""

Made = tuple[Artifact, str] | str
"""A file of an artifact, or anything else, of which a shard is made."""


@dataclass(frozen=True)
class Earlier:
    """What workers know of earlier artifacts.

    Attributes:
        kind: of the artifact.
        settings: digest of stage, version and configuration.
        inputs: digests of the stage's published inputs, by kind.
        urls: earlier artifacts, newest first.
        anew: whether everything is to be made again, whatever there is.
        rest: digest of the inputs of which no shard has files of its own, as `beside` finds it.
    """

    kind: str
    settings: str
    inputs: Mapping[str, str]
    urls: Collection[str] = field(default_factory=tuple)
    anew: bool = False
    rest: str = ""

    def beside(self, made: Collection[Made]) -> Earlier:
        """The same, knowing what shards of these kinds of files are made of beside them."""
        rest = canonical_json([_rest(self.inputs, made)])
        return replace(self, rest=hashlib.sha256(rest).hexdigest()[:16])

    def of(self, shard: Shard, made: Collection[Made]) -> str:
        """The digest of all that a shard is made of.

        Args:
            shard: follows the shard of its input that has its files, should that still be made.
            made: as `ShardJob.made_of` says.
        """
        files = [part for part in made if not isinstance(part, str)]
        rest = _rest(self.inputs, made)
        digests = [_sha256(artifact, name, shard) for artifact, name in files]
        others = [part for part in made if isinstance(part, str)]
        return hashlib.sha256(canonical_json([self.settings, rest, digests, others])).hexdigest()

    def same(self, of: str) -> tuple[Artifact, dict[str, Any]] | None:
        """An earlier shard that was made of the same."""
        return self._by_digest.get(of)

    def holding(self, file: str) -> Artifact | None:
        """The newest earlier artifact of the same settings and rest that has a file of this name."""
        return next((artifact for artifact, files in self._of_settings if file in files), None)

    def newest(self) -> Artifact | None:
        """The newest earlier artifact of the same settings and rest."""
        return next((artifact for artifact, _ in self._of_settings), None)

    @cached_property
    def _made(self) -> list[tuple[Artifact, dict[str, Any]]]:
        found = [(Artifact(self.kind, url.rpartition("/")[2], url), _read(url)) for url in self.urls]
        return [(artifact, made) for artifact, made in found if made]

    @cached_property
    def _by_digest(self) -> dict[str, tuple[Artifact, dict[str, Any]]]:
        return {
            shard["of"]: (artifact, shard)
            for artifact, made in reversed(self._made)
            for shard in made["shards"]
        }

    @cached_property
    def _of_settings(self) -> list[tuple[Artifact, set[str]]]:
        return [
            (artifact, {file for shard in made["shards"] for file in shard["files"]})
            for artifact, made in self._made
            if (made["settings"], made["rest"]) == (self.settings, self.rest)
        ]


def ask(stage: Stage, inputs: Mapping[str, Artifact], out: Workspace, *, anew: bool = False) -> None:
    """Write down, for workers, where they may look; in order that all of them see the same.

    Args:
        stage: The stage.
        inputs: What it reads, by its own kinds; those that are still made have no digest.
        out: Its workspace.
        anew: Take nothing: what is there may be damaged. A later attempt at the same work keeps to it.
    """
    config: Any = plain(stage.config, significant_only=True)
    for name in stage.apart:
        *above, last = name.split(".")
        group = config
        for key in above:
            group = group[key]
        group.pop(last, None)
    before = asked(out)
    anew = anew or (before is not None and before.anew)
    settings = hashlib.sha256(canonical_json([stage.name, stage.version, config])).hexdigest()[:16]
    digests = {kind: artifact.digest for kind, artifact in inputs.items() if artifact.published}
    kind = open_folder(out.url.rpartition("/")[0])
    names = [] if anew else [name for name in kind.children() if name != out.fingerprint]
    there = [name for name in names if kind.exists(f"{name}/{MADE}")]
    there.sort(key=lambda name: kind.modified(f"{name}/{MADE}"), reverse=True)
    told = {
        "kind": stage.output, "settings": settings, "inputs": digests,
        "urls": [kind.url_of(name) for name in there[:MOST]], "anew": anew,
    }  # fmt: skip
    out.folder.write_bytes(ASKED, canonical_json(told))


def asked(out: Workspace) -> Earlier | None:
    """What `ask` wrote; None where nobody did."""
    try:
        return _earlier(out.folder.read_bytes(ASKED))
    except FileNotFoundError:
        return None


def reused(shard: Shard, job: ShardJob, out: Workspace, of: str, earlier: Earlier) -> Record | None:
    """The record of a shard whose files an earlier artifact had; they are linked."""
    found = earlier.same(of)
    if found is None or not job.still_good(shard, *found):
        return None
    artifact, made = found
    if any(artifact.manifest["files"].get(name) != entry for name, entry in made["files"].items()):
        return None
    names = dict(zip(made["named"], job.files_of(shard), strict=True))
    files, summaries = (
        {names.get(name, name): value for name, value in made[key].items()} for key in ("files", "summaries")
    )
    try:
        for name in made["files"]:
            link(artifact.folder, name, out.folder, names.get(name, name))
    except OSError:  # it was deleted meanwhile: the shard is made
        return None
    return {
        "name": shard.name, "rows": made["rows"], "stats": made["stats"],
        "files": files, "summaries": summaries,
    }  # fmt: skip


def write_made(records: Mapping[int, Record], out: Workspace) -> None:
    """Write `made.json` of an artifact whose shards are done, if it is known what they are made of."""
    shards = [record for _, record in sorted(records.items()) if record.get("of")]
    earlier = asked(out) if shards else None
    if earlier:
        made = {"settings": earlier.settings, "rest": shards[0]["rest"], "shards": shards}
        out.folder.write_bytes(MADE, canonical_json(made))


@lru_cache(8)
def _earlier(asked: bytes) -> Earlier:
    return Earlier(**json.loads(asked))


@lru_cache(2 * MOST)
def _read(url: str) -> dict[str, Any] | None:
    """What an artifact says of its shards; it is published and does not change."""
    folder = open_folder(url)
    try:
        if not folder.exists(MANIFEST):
            return None
        found = json.loads(folder.read_bytes(MADE))
        return found if {"settings", "rest", "shards"} <= found.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def _rest(inputs: Mapping[str, str], made: Collection[Made]) -> dict[str, str]:
    """Digests of the inputs that no file of a shard stands for."""
    read = {part[0].kind for part in made if not isinstance(part, str)}
    return {kind: digest for kind, digest in inputs.items() if kind not in read}


def _sha256(artifact: Artifact, name: str, shard: Shard) -> str:
    """The digest of a file of an input, be it published or of a shard that is done."""
    record = artifact.record(place_of(shard)) if isinstance(artifact, Coming) else None
    known = record["files"].get(name, {}).get("sha256") if record else _digests(artifact.url).get(name)
    if known is None:
        raise FileNotFoundError(f"{artifact.kind} {artifact.fingerprint} has no file {name!r}")
    return str(known)


@lru_cache(8)
def _digests(url: str) -> dict[str, str]:
    manifest = Artifact("", url.rpartition("/")[2], url).manifest
    return {name: entry["sha256"] for name, entry in manifest["files"].items()}


def sibling(artifact: Artifact, kind: str) -> Artifact | None:
    """An input of a published artifact, if it still lies in the same store."""
    name = artifact.manifest["inputs"].get(kind)
    url = f"{artifact.url.rsplit('/', 2)[0]}/{kind}/{name}"
    found = Artifact(kind, str(name), url)
    return found if name and found.published else None
