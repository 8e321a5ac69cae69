"""Checkpoints that are whole or absent, and that the training does not wait for.

    {folder}/step-00000500/rank-00000.safetensors   weights, average, optimiser; where sharded, rank 0's rows
    {folder}/step-00000500/rank-00001.safetensors   and those of rank 1
    {folder}/step-00000500/state.json               counters, and size and SHA-256 of the files above

The training waits for a copy in memory alone. A thread writes it beside its place, syncs, and renames when
the files of all ranks are there. A checkpoint is read only if every digest agrees, otherwise the one before
it is used; any number of processes can go on from it, sharded or not.

Where machines share no disk, the files of step-00000500-{attempt} go to a store when they are written,
state.json last, and are fetched from there.

Not torch.distributed.checkpoint: its index is a pickle, which its safetensors writer only avoids by keeping
no digest, and a plan that processes exchange as pickles is more than shards by rows need. Nothing in these
files can execute.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from reptok.training.checkpoint_files import (
    FACTS,
    checkpoints,
    digest,
    digest_of_json,
    folder_name,
    is_whole,
    newest,
    read,
    sync,
    write_json,
)
from reptok.training.parallel import Alone
from reptok.training.shared import Shared
from reptok.training.state import TrainState

CHECKPOINTS = "checkpoints"
DRAFT = ".draft-"
KEEP = 2
PEER_TIMEOUT_SECONDS = 1800.0


class Checkpointer:
    """Writes and reads the checkpoints of one training.

    Attributes:
        folder: Where they lie; every process sees it.
    """

    def __init__(
        self,
        folder: Path,
        state: TrainState,
        parallel: Alone | None = None,
        keep: int = KEEP,
        shared: Shared | None = None,
    ) -> None:
        """Serve `state`; all processes construct theirs at the same time.

        Args:
            folder: Need not exist; what earlier attempts left of checkpoints in it is removed.
            state: What is saved and loaded.
            parallel: The processes; None for this one alone.
            keep: How many of the newest checkpoints stay.
            shared: How other machines see the folder; None where all processes do.
        """
        self._shared = shared or Shared(folder)
        parallel = parallel or Alone(torch.nn.Module())
        self.folder, self._state, self._keep, self._parallel = folder, state, keep, parallel
        self._first = parallel.rank == 0
        self._writers = parallel.shards  # of several copies the first is written
        if self._first or self._shared.url:
            for old in folder.glob("step-*-*" if self._shared.url else f"{DRAFT}*"):
                shutil.rmtree(old, ignore_errors=True)
        # Ranks meet in one draft; what a killed attempt left must not be taken for a part of it.
        self._attempt = f"{parallel.agreed(uuid.uuid4().int >> 80):012x}"
        self._copies: dict[str, Tensor] = {}
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def save(self) -> None:
        """Copy the state and begin to write it; waits for the checkpoint before, if that is not done.

        Raises:
            OSError: The checkpoint before could not be written.
        """
        self.wait()
        if self._parallel.rank >= self._writers:
            return
        self._copy()
        step, facts = self._state.step, json.dumps(self._state.counters())
        rows = {name: list(found) for name, found in self._state.rows().items()}
        arguments = (step, facts, rows)
        self._thread = threading.Thread(target=self._guarded, args=arguments, name="checkpoint", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until the last checkpoint is written.

        Raises:
            OSError: It could not be; the ones before it are untouched.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise OSError(
                f"the checkpoint could not be written ({error}); make room in {self.folder} and start again: "
                "the training goes on from the checkpoint before it"
            ) from error

    def load_newest(self) -> Path | None:
        """Load the newest checkpoint that is whole into the state.

        Returns:
            Its folder, or None when there is nothing to resume from: then the state is untouched.

        Raises:
            ValueError: The checkpoint is of another model.
            OSError: This process does not see the folder that rank 0 sees.
        """
        found = self._newest() if self._first else ""
        step, attempt = (self._parallel.agreed(number) for number in _numbers(found))
        if step < 0:
            return None
        name = folder_name(step) + (f"-{attempt:012x}" if attempt else "")
        self._shared.pull(name)
        place = self.folder / name
        try:
            counters = json.loads((place / FACTS).read_text())
        except FileNotFoundError as error:
            raise OSError(
                f"rank {self._parallel.rank} does not see {place}: the artifact root must be a folder that "
                "all machines share, or an object store"
            ) from error
        self._state.load(read(place, self._state.tensors(), self._state.rows()), counters)
        if self._shared.url:
            self._parallel.agreed(step)  # all have read it
            shutil.rmtree(place, ignore_errors=True)
        return place

    def _newest(self) -> str:
        """Name of the newest checkpoint that is whole, and here now; "" if there is none."""
        if not self._shared.url:
            place = newest(self.folder)
            return place.name if place else ""
        for name in finished(self._shared):
            self._shared.pull(name)
            if is_whole(self.folder / name):
                return name
            shutil.rmtree(self.folder / name, ignore_errors=True)
        return ""

    @torch.no_grad()
    def _copy(self) -> None:
        tensors = self._state.tensors()
        if not self._copies:
            self._copies = {
                name: torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
                for name, tensor in tensors.items()
            }
        for name, tensor in tensors.items():
            self._copies[name].copy_(tensor, non_blocking=True)
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    def _guarded(self, *arguments: Any) -> None:
        try:
            self._write(*arguments)
        except Exception as error:  # raised where the training meets it: at the next save
            self._error = error

    def _write(self, step: int, facts: str, rows: Mapping[str, list[int]]) -> None:
        place, shared = self.folder / folder_name(step), self._shared
        draft = self.folder / f"{DRAFT}{self._attempt}-{step}"
        if shared.url:
            draft = self.folder / f"{folder_name(step)}-{self._attempt}"
        draft.mkdir(parents=True, exist_ok=True)
        name = f"rank-{self._parallel.rank:05d}"
        part = draft / f"{name}.safetensors"
        own = self._copies if self._first else {key: self._copies[key] for key in rows}
        save_file(own, part, metadata={"rows": json.dumps(rows)})
        sync(part)
        receipt = {"bytes": part.stat().st_size, "sha256": digest(part)}
        if shared.url:
            shared.push(f"{draft.name}/{part.name}")
            part.unlink()
            shared.put(f"{draft.name}/{name}.json", json.dumps(receipt).encode())
        else:
            write_json(draft / f"{name}.json", receipt)
        if not self._first:
            return
        files = {
            f"rank-{rank:05d}.safetensors": _receipt(shared, draft, rank) for rank in range(self._writers)
        }
        described = {**json.loads(facts), "files": files}
        described |= {"sha256": digest_of_json(described)}
        if shared.url:
            shared.put(f"{draft.name}/{FACTS}", json.dumps(described).encode())
            kept = {draft.name, *finished(shared)[: self._keep]}
            for other in set(shared.names("")) - kept:
                if _numbers(other)[0] <= step:  # to a later one others have begun to write
                    shared.remove(other)
            shutil.rmtree(draft, ignore_errors=True)
            return
        for rank in range(self._writers):
            (draft / f"rank-{rank:05d}.json").unlink()
        write_json(draft / FACTS, described)
        if is_whole(place):
            shutil.rmtree(draft)
            return
        if place.exists():
            shutil.rmtree(place)
        draft.rename(place)
        sync(self.folder)
        for old in checkpoints(self.folder)[self._keep :]:
            shutil.rmtree(old, ignore_errors=True)


def finished(shared: Shared) -> list[str]:
    """Names of the checkpoints that all processes see, newest first; without a look inside."""
    names = [name for name in shared.names("") if name.startswith("step-")]
    return [name for name in reversed(names) if shared.exists(f"{name}/{FACTS}")]


def _numbers(name: str) -> tuple[int, int]:
    """Step and attempt by a checkpoint's name; -1 and 0 without one."""
    _, step, attempt = [*name.split("-"), "", ""][:3]
    return (int(step), int(attempt or "0", 16)) if step else (-1, 0)


def _receipt(shared: Shared, draft: Path, rank: int) -> dict[str, Any]:
    """Wait for what a rank says about its finished file."""
    path, end = draft / f"rank-{rank:05d}.json", time.monotonic() + PEER_TIMEOUT_SECONDS
    while True:
        with suppress(FileNotFoundError):
            receipt: dict[str, Any] = json.loads(path.read_text())
            return receipt
        if time.monotonic() > end:
            raise TimeoutError(f"rank {rank} wrote nothing within {PEER_TIMEOUT_SECONDS:.0f} s")
        time.sleep(0.5 if shared.url else 0.05)
        shared.pull(f"{draft.name}/{path.name}")
