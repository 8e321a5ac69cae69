"""An artifact that is being made, shard by shard, for a stage that goes on with each shard as it comes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from types import MappingProxyType
from typing import Any, BinaryIO

from pipelines.dag.artifact import Artifact


class Coming(Artifact):
    """Known by the plan of who makes it: its files have names, and are there when their shard is done.

    Args:
        artifact: what it will be.
        names: files that it will have or has; others, such as an index, come when all shards are done.
        facts: what is known of it beforehand (`ShardWork.facts`).
    """

    def __init__(self, artifact: Artifact, names: Sequence[str], facts: Mapping[str, Any]) -> None:
        super().__init__(artifact.kind, artifact.fingerprint, artifact.url)
        object.__setattr__(self, "_names", sorted(names))
        object.__setattr__(self, "facts", facts)

    facts: Mapping[str, Any] = MappingProxyType({})  # these two do not travel to workers
    _names: Sequence[str] = ()

    @property
    def published(self) -> bool:
        """It is not, as far as who reads it need know."""
        return False

    def files(self, pattern: str = "*") -> list[str]:
        """Names of the files that its shards are to have, sorted."""
        return [name for name in self._names if fnmatch(name, pattern)]

    def open(self, name: str) -> BinaryIO:
        """Open a file whose shard is done."""
        return self.folder.open_lasting(name)
