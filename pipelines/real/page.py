"""What was found, as one file of JSON and one page that needs nothing beside it."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from pipelines.dag.progress import duration
from pipelines.dag.redaction import redacted
from pipelines.real.check import DIFFERS, FAILED, GOOD, Result
from pipelines.real.material import Material
from pipelines.real.stated import Values
from pipelines.reports.report import environment, picture

JSON, PAGE = "real.json", "real.html"
LIBRARIES = ("torch", "timm", "transformers", "diffusers", "open_clip_torch")
SHOWN = 5


def write(results: Sequence[Result], waiting: Sequence[str], material: Material) -> None:
    """Write both files anew, each at once.

    Args:
        results: What is known.
        waiting: Names of rows that are still to come.
        material: With the settings, and the folder.
    """
    found = {
        "finished": not waiting,
        "good": all(result.outcome in GOOD for result in results) and not waiting,
        "machine": machine(material.device),
        "settings": {key: redacted(str(value)) for key, value in asdict(material.settings).items()},
        "results": [asdict(result) for result in results],
    }
    _replace(material.out / JSON, json.dumps(found, indent=2) + "\n")
    page = environment().get_template("real.html.j2")
    pictures = [
        picture(f"{result.name}: {result.what}", shown.caption, (material.out / shown.file).read_bytes())
        for result in results
        for shown in result.pictures
    ]
    _replace(
        material.out / PAGE,
        page.render(
            results=results, waiting=waiting, pictures=pictures, machine=found["machine"],
            settings=found["settings"], numbers=shown, duration=duration, bad=(DIFFERS, FAILED), good=GOOD,
        ),
    )  # fmt: skip


def machine(device: torch.device) -> dict[str, str]:
    """Where it ran."""
    cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if cuda else platform.processor() or platform.machine()
    return {"device": f"{device.type}: {name}", "python": platform.python_version()} | {
        library: version(library) for library in LIBRARIES
    }


def shown(values: Values | None) -> str:
    """Numbers or a text for people; of many numbers the first."""
    if values is None:
        return ""
    if isinstance(values, str):
        return values
    text = ", ".join(f"{value:.4f}" for value in values[:SHOWN])
    return text + (", …" if len(values) > SHOWN else "")


def line(result: Result) -> str:
    """A result as one line on the terminal."""
    parts: list[Any] = [f"{result.name:<16} {result.outcome}"]
    if result.outcome not in GOOD and result.ours is not None:
        parts.append(f"ours {shown(result.ours)}, theirs {shown(result.theirs)}")
    if result.difference is not None:
        parts.append(f"difference {result.difference:.2g}")
    return "; ".join([*parts, *([result.note] if result.note else []), f"{result.seconds:.1f} s"])


def _replace(file: Path, text: str) -> None:
    part = file.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, file)
