"""A stage's scratch as the folder of a training, whose processes may run on machines that share no disk."""

from __future__ import annotations

import shutil

from pipelines.dag.stage import Workspace
from pipelines.dag.storage import LocalFolder
from reptok.training.run import FINISHED, RESULT, finished_folder
from reptok.training.shared import Shared, share


def share_scratch(out: Workspace) -> Shared:
    """A workspace's scratch, as the processes of a training share it."""
    if isinstance(out.folder, LocalFolder):
        return Shared(out.scratch)
    return share(out.scratch, out.scratch_url)


def finished(out: Workspace) -> bool:
    """Whether a training has left its result, which is in this machine's scratch then.

    Raises:
        OSError: The store does not answer.
    """
    shared, place = share_scratch(out), finished_folder(out.scratch)
    if shared.url:  # what lies here may be of another time
        shutil.rmtree(place, ignore_errors=True)
        if shared.exists(f"{FINISHED}/{RESULT}"):
            shared.pull(FINISHED)
    return (place / RESULT).exists()
