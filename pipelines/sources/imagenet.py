"""ImageNet-1k as its challenge hands it out: classes by WordNet id, validation pictures in one folder.

ILSVRC/Data/CLS-LOC/train/n01440764/n01440764_18.JPEG
ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00000001.JPEG
LOC_synset_mapping.txt    n01440764 tench, Tinca tinca
LOC_val_solution.csv      ILSVRC2012_val_00000001,n03995372 85 1 499 272
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pipelines.sources.source import read_file

DATA = ("ILSVRC", "Data", "CLS-LOC")
MAPPING, SOLUTION = "LOC_synset_mapping.txt", "LOC_val_solution.csv"


def is_challenge(folder: Path) -> bool:
    """Whether a folder has that layout."""
    return folder.joinpath(*DATA, "train").is_dir()


def list_challenge(folder: Path, paths: Sequence[Path]) -> tuple[list[tuple[str, str, str]], dict[str, str]]:
    """Give each picture its split and class, and each class its first English name.

    Args:
        folder: The folder that holds `ILSVRC/`.
        paths: Pictures in it, relative.

    Returns:
        (path, split, WordNet id) of the pictures of both splits; name by WordNet id.

    Raises:
        FileNotFoundError: A table of the layout is missing.
        ValueError: A validation picture has no class.
    """
    names = {}
    for line in _text(folder, MAPPING).splitlines():
        wnid, _, words = line.partition(" ")
        names[wnid] = words.split(",")[0].strip() or wnid
    answers = {}
    for row in csv.DictReader(_text(folder, SOLUTION).splitlines()):
        answers[row.get("ImageId") or ""] = (row.get("PredictionString") or "").partition(" ")[0]
    listed = []
    for path in paths:
        if path.parts[:3] != DATA or len(path.parts) < 5:
            continue
        if path.parts[3] == "train" and len(path.parts) == 6:
            listed.append((path.as_posix(), "train", path.parts[4]))
        elif path.parts[3] == "val" and len(path.parts) == 5:
            if path.stem not in answers:
                raise ValueError(
                    f"{SOLUTION} has no class for {path.name}; complete it, or remove the picture"
                )
            listed.append((path.as_posix(), "val", answers[path.stem]))
    if not listed:
        raise ValueError(f"'{folder}' has ImageNet's folders and no picture in them")
    # Two of the 1,000 first names are shared by two classes: those get their id beside it.
    shared = {name for name, count in Counter(names.values()).items() if count > 1}
    return listed, {wnid: f"{name} ({wnid})" if name in shared else name for wnid, name in names.items()}


def _text(folder: Path, name: str) -> str:
    if not (folder / name).exists():
        raise FileNotFoundError(
            f"{folder / name} is missing: ImageNet's layout has it beside ILSVRC/; put it there"
        )
    return read_file(folder, name).decode("utf-8", "replace")
