"""Checkpoints that are whole or absent, and that the training does not wait for.

    {folder}/step-00000500/rank-00000.safetensors   weights, average, optimiser; where sharded, rank 0's rows
    {folder}/step-00000500/rank-00001.safetensors   and those of rank 1
    {folder}/step-00000500/state.json               counters, and size and SHA-256 of the files above

The training waits for a copy in memory alone. A thread writes it beside its place, syncs, and renames when
the files of all ranks are there. A checkpoint is read only if every digest agrees, otherwise the one before
it is used; any number of processes can go on from it, sharded or not.

Not torch.distributed.checkpoint: its index is a pickle, which its safetensors writer only avoids by keeping
no digest, and a plan that processes exchange as pickles is more than shards by rows need. Nothing in these
files can execute.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from reptok.training.parallel import Alone
from reptok.training.sharding import Rows
from reptok.training.state import TrainState

FACTS, PARTS, DRAFT = "state.json", "rank-?????.safetensors", ".draft-"
KEEP = 2
PEER_TIMEOUT_SECONDS = 1800.0


class Checkpointer:
    """Writes and reads the checkpoints of one training.

    Attributes:
        folder: Where they lie; every process sees it.
    """

    def __init__(
        self, folder: Path, state: TrainState, parallel: Alone | None = None, keep: int = KEEP
    ) -> None:
        """Serve `state`; all processes construct theirs at the same time.

        Args:
            folder: Need not exist; unfinished checkpoints of earlier attempts in it are removed.
            state: What is saved and loaded.
            parallel: The processes; None for this one alone.
            keep: How many of the newest checkpoints stay.
        """
        parallel = parallel or Alone(torch.nn.Module())
        self.folder, self._state, self._keep, self._parallel = folder, state, keep, parallel
        self._first = parallel.rank == 0
        self._writers = parallel.shards  # of several copies the first is written
        if self._first:
            for old in folder.glob(f"{DRAFT}*"):
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
        place = newest(self.folder) if self._first else None
        step = self._parallel.agreed(-1 if place is None else int(place.name.rpartition("-")[2]))
        if step < 0:
            return None
        place = self.folder / folder_name(step)
        try:
            counters = json.loads((place / FACTS).read_text())
        except FileNotFoundError as error:
            raise OSError(
                f"rank {self._parallel.rank} does not see {place}: the artifact root must be a folder that "
                "all machines share"
            ) from error
        self._state.load(read(place, self._state.tensors(), self._state.rows()), counters)
        return place

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
        place = self.folder / folder_name(step)
        draft = self.folder / f"{DRAFT}{self._attempt}-{step}"
        draft.mkdir(parents=True, exist_ok=True)
        name = f"rank-{self._parallel.rank:05d}"
        part = draft / f"{name}.safetensors"
        own = self._copies if self._first else {key: self._copies[key] for key in rows}
        save_file(own, part, metadata={"rows": json.dumps(rows)})
        _sync(part)
        _write_json(draft / f"{name}.json", {"bytes": part.stat().st_size, "sha256": _digest(part)})
        if not self._first:
            return
        files = {f"rank-{rank:05d}.safetensors": _receipt(draft, rank) for rank in range(self._writers)}
        for rank in range(self._writers):
            (draft / f"rank-{rank:05d}.json").unlink()
        described = {**json.loads(facts), "files": files}
        _write_json(draft / FACTS, {**described, "sha256": _digest_of_json(described)})
        if is_whole(place):
            shutil.rmtree(draft)
            return
        if place.exists():
            shutil.rmtree(place)
        draft.rename(place)
        _sync(self.folder)
        for old in checkpoints(self.folder)[self._keep :]:
            shutil.rmtree(old, ignore_errors=True)


def newest(folder: Path) -> Path | None:
    """Return the newest checkpoint in which every file has the size and the digest that were written."""
    return next((place for place in checkpoints(folder) if is_whole(place)), None)


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoint folders, newest first, without looking inside."""
    return sorted(folder.glob("step-????????"), reverse=True)


def folder_name(step: int) -> str:
    """Return the name of a step's checkpoint."""
    return f"step-{step:08d}"


def is_whole(place: Path) -> bool:
    """Tell whether a checkpoint's files are those that were written."""
    try:
        described = json.loads((place / FACTS).read_text())
        return described.pop("sha256") == _digest_of_json(described) and all(
            (place / name).stat().st_size == facts["bytes"] and _digest(place / name) == facts["sha256"]
            for name, facts in described["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def read(place: Path, like: Mapping[str, Tensor], wanted: Mapping[str, Rows]) -> dict[str, Tensor]:
    """Read a checkpoint's tensors, whoever wrote which rows of them.

    Args:
        place: A whole checkpoint.
        like: Tensors by name, for type and device.
        wanted: The rows to read of those that are sharded here; of any other all rows.

    Returns:
        Tensors by name, those in the checkpoint.

    Raises:
        ValueError: Rows of a tensor are missing.
    """
    found: dict[str, list[tuple[int, Tensor]]] = {}
    for path in sorted(place.glob(PARTS)):
        with safe_open(path, "pt") as file:
            rows = {name: Rows(*r) for name, r in json.loads(file.metadata()["rows"]).items()}
            for name in file.keys():  # noqa: SIM118
                have, want = rows.get(name), wanted.get(name)
                view = file.get_slice(name)
                if have is None and want is None:
                    found[name] = [(0, file.get_tensor(name))]
                    continue
                total = have.total if have else view.get_shape()[0]
                have, want = have or Rows(0, total, total), want or Rows(0, total, total)
                start, stop = max(have.start, want.start), min(have.stop, want.stop)
                pieces = found.setdefault(name, [])
                if start < stop or not pieces:
                    pieces.append((start, view[start - have.start : max(start, stop) - have.start]))
    return {name: _joined(pieces) for name, pieces in found.items()}


def _joined(pieces: list[tuple[int, Tensor]]) -> Tensor:
    if len(pieces) == 1:
        return pieces[0][1]
    return torch.cat([piece for _, piece in sorted(pieces, key=lambda pair: pair[0])])


def _receipt(draft: Path, rank: int) -> dict[str, Any]:
    """Wait for what a rank says about its finished file."""
    path, end = draft / f"rank-{rank:05d}.json", time.monotonic() + PEER_TIMEOUT_SECONDS
    while not path.exists():
        if time.monotonic() > end:
            raise TimeoutError(f"rank {rank} wrote nothing within {PEER_TIMEOUT_SECONDS:.0f} s")
        time.sleep(0.05)
    receipt: dict[str, Any] = json.loads(path.read_text())
    return receipt


def _write_json(path: Path, value: Any) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, sort_keys=True))
    _sync(partial)
    partial.rename(path)
    _sync(path.parent)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
