"""Check a folder of data whole: every fault is named, none is only counted.

Three kinds of folder: `dataset` (index.json), `latents` (latent_spec.json) and `tokens` (statistics beside
that). Where a manifest.json lies in the folder, every file is compared with it, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from reptok.data.index import INDEX
from reptok.data.shards import parse_object

LATENT_SPEC, TOKEN_STATS, MANIFEST = "latent_spec.json", "token_stats.safetensors", "manifest.json"
MADE = "made.json"
"""Beside a manifest, and no part of what it lists: which shard is made of what."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass
class Verdict:
    """What was found in a folder.

    Attributes:
        kind: "dataset", "latents" or "tokens".
        shards: Shards looked at.
        rows: Samples in them.
        faults: One line each, with file and sample; none if everything is sound.
        notes: What could not be compared, and why.
    """

    kind: str
    shards: int = 0
    rows: int = 0
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verify(
    folder: Path,
    dataset: Path | None = None,
    *,
    images: bool = True,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Verdict:
    """Check a `dataset`, `latents` or `tokens` folder.

    Args:
        folder: The folder.
        dataset: For latents and tokens, the dataset that they were made from; by default the one that the
            manifest names, where it lies in the same store.
        images: Decode every image of a dataset.
        workers: Processes.
        progress: Called with (shards done, shards in all).

    Raises:
        FileNotFoundError: There is no such folder, or nothing in it says what it holds.
    """
    from reptok.data.verify_blocks import verify_blocks
    from reptok.data.verify_dataset import verify_dataset

    kind = kind_of(folder)
    tell = progress or (lambda done, total: None)
    if kind == "dataset":
        verdict = verify_dataset(folder, images, workers, tell)
    else:
        verdict = verify_blocks(folder, kind, dataset or source_of(folder), workers, tell)
    verdict.faults += manifest_faults(folder)
    return verdict


def kind_of(folder: Path) -> str:
    """Tell what a folder holds by the files that lie in it."""
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {str(folder)!r}")
    if (folder / INDEX).exists():
        return "dataset"
    if (folder / TOKEN_STATS).exists():
        return "tokens"
    if (folder / LATENT_SPEC).exists():
        return "latents"
    if list(folder.glob("train-*.tar")):
        raise FileNotFoundError(
            f"{folder} holds shards and neither {INDEX} nor {LATENT_SPEC}: it is unfinished; rerun the stage "
            "that makes it"
        )
    raise FileNotFoundError(f"{folder} is no dataset, latents or tokens folder")


def source_of(folder: Path) -> Path | None:
    """The dataset that latents or tokens were made from, where it lies in the same artifact store."""
    try:
        manifest = parse_object((folder / MANIFEST).read_bytes())
        found = folder.resolve().parents[1] / "dataset" / str(manifest["inputs"]["dataset"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if found.is_dir() else None


def manifest_faults(folder: Path) -> list[str]:
    """Compare a folder's files with its manifest, if it has one."""
    path = folder / MANIFEST
    if not path.exists():
        return []
    try:
        listed = parse_object(path.read_bytes())["files"]
        expected = {str(name): (entry["size"], entry["sha256"]) for name, entry in listed.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return [f"{MANIFEST}: not a readable manifest"]
    found = []
    for name, (size, sha256) in sorted(expected.items()):
        file = folder / name
        if not file.resolve().is_relative_to(folder.resolve()):
            found.append(f"{MANIFEST}: {name!r} lies outside of the folder")
        elif not file.is_file():
            found.append(f"{name}: missing, although {MANIFEST} lists it")
        elif file.stat().st_size != size:
            found.append(f"{name}: {file.stat().st_size} bytes where {MANIFEST} says {size}")
        elif digest_of(file) != sha256:
            found.append(f"{name}: its SHA-256 is not the one of {MANIFEST}")
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    for name in sorted(present - expected.keys() - {MANIFEST, MADE}):
        if not name.startswith("_scratch/"):
            found.append(f"{name}: not listed in {MANIFEST}")
    return found


def digest_of(file: Path) -> str:
    """SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def in_processes(
    work: Callable[[T], R], tasks: list[T], workers: int, progress: Callable[[int, int], None]
) -> Iterator[R]:
    """Yield `work(task)` in order, in this process or in several."""
    with _mapper(workers) as mapper:
        for done, result in enumerate(mapper(work, tasks), 1):
            yield result
            progress(done, len(tasks))


@contextmanager
def _mapper(workers: int) -> Iterator[Callable[..., Any]]:
    if workers <= 1:
        yield map
    else:
        with ProcessPoolExecutor(workers) as pool:
            yield pool.map
