"""A training that starts from a published model says what it took, in its log and beside its weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipelines.configuration.start import place
from pipelines.training.process import Member
from pipelines.training.relay import RelayLog
from reptok.configs import TextEncoderConfig
from reptok.folder import local_folder
from reptok.training.start import Start, same_network
from reptok.weights import read_json, write_json

FILE = "init.json"


def start_from(
    init: str, part: str, begin: Callable[[Path], Start], member: Member, log: RelayLog
) -> Start | None:
    """Let `begin` take what it can from the part of a model; None where there is nothing to start from.

    Args:
        init: A folder, or a model of the hub that was fetched; "" for none.
        part: "tokenizer" or "generator".
        begin: Called with that part's folder.
        member: This process; the first says what was taken.
        log: Where.
    """
    folder = place(local_folder(init), part) if init else None
    if folder is None:
        return None
    start = begin(folder)
    if member.rank == 0:
        log.note(f"{part} from {init}: {start}")
    return start


def record(start: Start | None, folder: Path) -> None:
    """Write down beside a model what it started with."""
    if start is not None:
        numbers = {"numbers_taken": start.count(start.taken), "numbers_fresh": start.count(start.fresh)}
        write_json(folder / FILE, {**numbers, **start.values})


def same_classes(generator: Path, names: list[str] | None) -> bool:
    """Whether the model that a generator's folder is part of calls the classes so, in this order."""
    model = generator.parent / "model.json"
    return names is not None and model.is_file() and read_json(model).get("class_names") == names


def same_text(generator: Path, text_encoder: TextEncoderConfig | None) -> bool:
    """Whether that model reads the same language model; of open_clip's nothing is known."""
    theirs = generator.parent / "text_encoder"
    if text_encoder is None or text_encoder.kind == "open_clip" or not theirs.is_dir():
        return False
    return same_network(theirs, local_folder(text_encoder.path))
