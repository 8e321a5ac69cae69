"""An artifact that is being made, shard by shard, for a stage that goes on with each shard as it comes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from types import MappingProxyType
from typing import Any

from pipelines.dag.artifact import Artifact
from pipelines.dag.shard_records import Record, done_record

HELD = 64
_came: OrderedDict[tuple[str, int], Record] = OrderedDict()
"""The newest done records that this process was told, by workspace and index: they are not asked for."""


def came(url: str, index: int, record: Record) -> None:
    """Know the done record of a shard, for as long as its followers in the chain need it."""
    _came[url, index] = record
    while len(_came) > HELD:
        _came.popitem(last=False)


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

    def _listed(self, name: str) -> None:
        """Its files are there when their shards are done."""

    def record(self, index: int) -> Record | None:
        """The done record of one of its shards; None when it is published, and its work is cleaned away."""
        if (self.url, index) not in _came and (found := done_record(index, self.folder)):
            came(self.url, index, found)
        return _came.get((self.url, index))
