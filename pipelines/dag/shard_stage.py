"""A stage that works shard by shard, so that it can go on with each shard of its input as it comes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

from pipelines.dag.artifact import Artifact
from pipelines.dag.shards import ShardWork, tally_of
from pipelines.dag.stage import Stage
from pipelines.dag.workspace import Workspace


class ShardStage(Stage):
    """Plans its shards, has them done, and finishes with what needs all of them.

    Attributes:
        by_shard: own kinds of inputs of which each shard reads what a shard before it has made, and `work`
            no more than names and facts: the runner may give a `Coming` for them, and the shards of this
            stage follow those of that one without waiting for the rest (see `pipelines/dag/chain.py`). What
            this stage does with a shard must then depend on nothing else.
    """

    by_shard: tuple[str, ...] = ()

    @abstractmethod
    def work(self, inputs: Mapping[str, Artifact], out: Workspace) -> ShardWork:
        """Plan the shards; files that later stages plan by are written here, before the shards."""

    def finish(
        self, inputs: Mapping[str, Artifact], out: Workspace, work: ShardWork, stats: Mapping[str, float]
    ) -> Mapping[str, float]:
        """Write what needs all shards (`out.digests` knows their files) and return the stage's stats.

        The work has the shards that the artifact is made of: less than were planned, where a wanted number
        was reached.
        """
        return stats

    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        """Do all shards, and finish."""
        tally = tally_of(self.work(inputs, out), out)
        return self.finish(inputs, out, tally.work, tally.stats())
