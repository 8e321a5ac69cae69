"""What a training is told through, and the plainest such log: lines of JSON and pictures in a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from reptok.training.preview import Grid

LINES, PICTURES = "log.jsonl", "pictures"


class TrainLog(Protocol):
    """Takes what a training tells; it must not make it wait."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record scalars of a step."""

    def progress(self, done: int, total: int) -> None:
        """Tell how far the training is."""

    def note(self, text: str) -> None:
        """Tell the user a line."""

    def grid(self, grid: Grid, step: int) -> None:
        """Record a table of pictures."""

    def file(self, path: Path, folder: str) -> None:
        """Record a file that stays where it is until the training's stage ends, under a folder's name."""

    def flush(self) -> None:
        """Return when what was told has arrived."""


class FolderLog:
    """Appends to a folder what it is told, one JSON object a line.

    {folder}/log.jsonl    {"step": 50, "metrics": {...}}, {"progress": [50, 1000]}, {"note": "..."},
                          {"path": ..., "folder": "profile"} or
                          {"step": 50, "grid": "samples", "columns": [...], "labels": [...], "file": ...}
    {folder}/pictures/    the grids, PNG: a line of tiles per label, a tile per column
    """

    def __init__(self, folder: Path, *, echo: bool = False):
        """Log into `folder`; with `echo`, losses, progress and notes are printed, too."""
        self._folder, self._echo = folder, echo
        (folder / PICTURES).mkdir(parents=True, exist_ok=True)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        if not values:
            return
        self._append({"step": step, "metrics": dict(values)})
        shown = [f"{name} {values[name]:.4g}" for name in ECHOED if name in values]
        self._print(f"step {step}: {', '.join(shown)}" if shown else "")

    def progress(self, done: int, total: int) -> None:
        self._append({"progress": [done, total]})

    def note(self, text: str) -> None:
        self._append({"note": text})
        self._print(text)

    def grid(self, grid: Grid, step: int) -> None:
        file = f"{PICTURES}/{grid.name}-{step:08d}.png"
        sheet = np.concatenate([np.concatenate(pictures, axis=1) for _, pictures in grid.rows])
        Image.fromarray(sheet).save(self._folder / file)
        labels = [label for label, _ in grid.rows]
        self._append(
            {"step": step, "grid": grid.name, "columns": list(grid.columns), "labels": labels, "file": file}
        )

    def file(self, path: Path, folder: str) -> None:
        self._append({"path": str(path.resolve()), "folder": folder})

    def flush(self) -> None:
        """Every line is written when it is told."""

    def _append(self, line: dict[str, Any]) -> None:
        with (self._folder / LINES).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _print(self, text: str) -> None:
        if self._echo and text:
            print(text, flush=True)


ECHOED = ("train/loss", "val/loss", "speed/images_per_second")


class Follower:
    """Passes on to another log what a `FolderLog` of another process appends."""

    def __init__(self, folder: Path, log: TrainLog):
        """Begin at the end of what is there already."""
        self._folder, self._log = folder, log
        self._position = (folder / LINES).stat().st_size if (folder / LINES).exists() else 0

    def read(self) -> None:
        """Pass on the whole lines that have come since the last time."""
        for line in self._lines():
            told = json.loads(line)
            if "metrics" in told:
                self._log.metrics(told["metrics"], told["step"])
            elif "progress" in told:
                self._log.progress(*told["progress"])
            elif "note" in told:
                self._log.note(told["note"])
            elif "path" in told:
                self._log.file(Path(told["path"]), told["folder"])
            else:
                self._log.grid(self._grid(told), told["step"])

    def _lines(self) -> Iterator[str]:
        try:
            with (self._folder / LINES).open("rb") as file:
                file.seek(self._position)
                for line in file:
                    if not line.endswith(b"\n"):
                        return
                    self._position += len(line)
                    yield line.decode()
        except FileNotFoundError:
            return

    def _grid(self, told: Mapping[str, Any]) -> Grid:
        with Image.open(self._folder / told["file"]) as picture:
            sheet = np.asarray(picture.convert("RGB"))
        lines = np.split(sheet, len(told["labels"]))
        rows = [
            (label, np.split(line, len(told["columns"]), axis=1))
            for label, line in zip(told["labels"], lines, strict=True)
        ]
        return Grid(told["grid"], told["columns"], rows)
