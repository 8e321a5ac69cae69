"""A stage's scratch as the folder of a training, whose processes may run on machines that share no disk."""

from __future__ import annotations

from pipelines.dag.stage import Workspace
from pipelines.dag.storage import LocalFolder
from reptok.training.shared import Shared, share


def share_scratch(out: Workspace) -> Shared:
    """A workspace's scratch, as the processes of a training share it."""
    if isinstance(out.folder, LocalFolder):
        return Shared(out.scratch)
    return share(out.scratch, out.scratch_url)
