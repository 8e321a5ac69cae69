"""The download of the demo's web, wherever it runs: each worker serves its own copy to itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from examples.photographs.web import FaultServer
from pipelines.crawl.guarded import GuardedDownload
from pipelines.dag.artifact import Artifact
from pipelines.dag.earlier import Made
from pipelines.dag.shards import Shard, ShardJob
from pipelines.dag.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class ServedDownload(ShardJob):
    """A download whose hosts are served on the worker's loopback, which no other machine reaches.

    The stats of a shard hold the server's own count of its URLs, `served_<outcome>`.

    Attributes:
        download: what to do; its overrides are set here.
        web: the `web` artifact.
    """

    download: GuardedDownload
    web: Artifact

    def setup(self) -> None:
        """Start the server, for as long as this process lives."""
        server = FaultServer.of(self.web).__enter__()
        object.__setattr__(self, "_server", server)
        object.__setattr__(self, "download", replace(self.download, overrides=server.overrides))
        self.download.setup()

    def absent(self, shard: Shard, out: Workspace) -> None:
        """See the download."""
        self.download.absent(shard, out)

    def rows_of(self, shard: Shard) -> int:
        """See the download."""
        return self.download.rows_of(shard)

    def files_of(self, shard: Shard) -> tuple[str, ...]:
        """See the download."""
        return self.download.files_of(shard)

    def made_of(self, shard: Shard) -> Sequence[Made]:
        """See the download."""
        return self.download.made_of(shard)

    def still_good(self, shard: Shard, earlier: Artifact, made: Mapping[str, Any]) -> bool:
        """See the download."""
        return self.download.still_good(shard, earlier, made)

    def __call__(self, shard: Shard, out: Workspace) -> Mapping[str, float]:
        """Download the shard; an attempt that failed before leaves no trace in the count."""
        server: FaultServer = self._server  # type: ignore[attr-defined]
        server.forget()
        stats = self.download(shard, out)
        return {**stats, **{f"served_{outcome}": n for outcome, n in server.tally().items()}}
