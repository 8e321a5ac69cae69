"""Start a training from a published model: what has a place in the new one is taken, the rest is fresh.

A weight has a place where its name and its shape are the same and it means the same: the adapted `[cls]` of
the same frozen encoder, a table of the same classes, the reading of the same language model's states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reptok.autoencoder import LatentSpec
from reptok.configs import TextEncoderConfig
from reptok.folder import check_folder, local_folder, weight_shapes
from reptok.generator.generator import TokenGenerator
from reptok.tokenizer import RepTok
from reptok.values import from_values
from reptok.weights import load_weights, read_json, write_json

WEIGHTS, FILE = "model.safetensors", "init.json"
WHITENING = "stats.whitening"
PARTS = ("tokenizer", "generator")
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Start:
    """What a training starts with.

    Attributes:
        taken: Names of the weights that another model gave.
        fresh: Names of those that start anew.
        sizes: How many parameters each weight has, by name.
    """

    taken: tuple[str, ...]
    fresh: tuple[str, ...]
    sizes: Mapping[str, int]

    def __str__(self) -> str:
        """Parameters taken, and the fresh parts by the first two words of their names."""
        taken, everything = self.count(self.taken), sum(self.sizes.values())
        text = f"{taken / 1e6:.3g} M of {everything / 1e6:.3g} M parameters taken"
        parts: dict[str, int] = {}
        for name in self.fresh:
            part = ".".join(name.split(".")[:2])
            parts[part] = parts.get(part, 0) + self.sizes[name]
        return text + "; fresh: " + (", ".join(f"{part} ({n:,})" for part, n in parts.items()) or "nothing")

    def count(self, names: Iterable[str]) -> int:
        """Parameters in some of the weights."""
        return sum(self.sizes[name] for name in names)

    @property
    def values(self) -> dict[str, Any]:
        """For a file beside the weights."""
        return {"taken": list(self.taken), "fresh": list(self.fresh)}


def part_of(folder: Path, part: str) -> Path | None:
    """The folder of "tokenizer" or "generator" within a model's folder, or that folder; None without one.

    Raises:
        ValueError: It is no published model.
    """
    check_folder(folder)
    if (folder / "model.json").is_file():
        return folder / part if (folder / part / "config.json").is_file() else None
    kind = read_json(folder / "config.json").get("kind") if (folder / "config.json").is_file() else None
    if kind not in PARTS:
        raise ValueError(
            f"init={folder} is no published model to start from: name a folder with a model.json, or its "
            "tokenizer/ or generator/ alone"
        )
    return folder if kind == part else None


def start_from(init: str, part: str, begin: Callable[[Path], Start]) -> Start | None:
    """Let `begin` take what it can from the part of a model; None where there is nothing to start from.

    Args:
        init: A folder, or a model of the hub that was fetched; "" for none.
        part: "tokenizer" or "generator".
        begin: Called with that part's folder.
    """
    folder = part_of(local_folder(init), part) if init else None
    return None if folder is None else begin(folder)


def record(start: Start | None, folder: Path) -> None:
    """Write down beside a model what it started with."""
    if start is not None:
        counts = {
            "parameters_taken": start.count(start.taken),
            "parameters_fresh": start.count(start.fresh),
        }
        write_json(folder / FILE, {**counts, **start.values})


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


def compare(own: Shapes, theirs: Shapes, ours: Callable[[str], bool] = lambda name: False) -> Start:
    """Say which weights have a place.

    Args:
        own: Shapes of what is to be trained, by name.
        theirs: Shapes of what another model has.
        ours: Whether a weight means something else there, and must start anew.
    """
    taken = [name for name, shape in own.items() if theirs.get(name) == tuple(shape) and not ours(name)]
    sizes = {name: torch.Size(shape).numel() for name, shape in own.items()}
    return Start(tuple(taken), tuple(name for name in own if name not in set(taken)), sizes)


def start_tokenizer(tokenizer: RepTok, folder: Path) -> Start:
    """Take decoder, projection and, under the same frozen encoder, the adapted embedding, in place.

    Args:
        tokenizer: As its configuration built it.
        folder: A tokenizer's folder, as `save_tokenizer` wrote it.

    Raises:
        ValueError: Nothing fits, or it paints another VAE's latents.
    """
    check_folder(folder)
    spec = from_values(LatentSpec, read_json(folder / "latent_spec.json"), folder / "latent_spec.json")
    spec.check(tokenizer.autoencoder.spec)
    state = load_weights(folder / WEIGHTS)
    encoder = tokenizer.encoder.original_vit.state_dict()
    same = same_tensors(encoder, load_weights(folder / "encoder" / WEIGHTS))
    own = tokenizer.trainable_state_dict()
    start = compare(shapes(own), shapes(state), lambda name: name.startswith("encoder.") and not same)
    _some(start, folder)
    tokenizer.load_state_dict({name: state[name] for name in start.taken}, strict=False)
    return start


def start_generator(generator: TokenGenerator, folder: Path, *, same_classes: bool, same_text: bool) -> Start:
    """Take the network, and what reads its condition where that means the same, in place.

    The statistics of tokens stay those of the new data; of whitened tokens they are the network's own space,
    and are taken with it.

    Args:
        generator: As its configuration built it.
        folder: A generator's folder, as `save_generator` wrote it.
        same_classes: Whether a label means the same class there.
        same_text: Whether it read the same language model.

    Raises:
        ValueError: Nothing fits, or one's tokens are whitened and the other's are not.
    """
    check_folder(folder)
    state = load_weights(folder / WEIGHTS)
    own = generator.state_dict()
    start = _fitting(own, shapes(state), folder, _other_condition(same_classes, same_text))
    space = [name for name in own if name.startswith("stats.")] if _same_space(own, state) else []
    generator.load_state_dict({name: state[name] for name in (*start.taken, *space)}, strict=False)
    return start


def expect(own: Mapping[str, Tensor], folder: Path, ours: Callable[[str], bool]) -> Start:
    """What would be taken, from the shapes alone; for a plan, with a network on the meta device.

    Raises:
        ValueError: Nothing would, or a generator's tokens are whitened and the other's are not.
    """
    return _fitting(own, weight_shapes([folder / WEIGHTS]), folder, ours)


def same_tensors(some: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> bool:
    """Whether both hold the same numbers under the same names."""
    return some.keys() == others.keys() and all(
        torch.equal(value.float().cpu(), others[name].float()) for name, value in some.items()
    )


def same_network(folder: Path, other: Path) -> bool:
    """Whether two folders hold the same weights, whatever else they hold."""
    found = [
        {k: v for file in sorted(place.glob("*.safetensors")) for k, v in load_weights(file).items()}
        for place in (folder, other)
    ]
    return bool(found[0]) and same_tensors(*found)


def shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shapes by name."""
    return {name: tuple(value.shape) for name, value in state.items()}


def _same_space(own: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> bool:
    """Whether both whiten tokens of one width, so that the one network is of use in the other's space."""
    return WHITENING in own and WHITENING in theirs and own[WHITENING].shape == theirs[WHITENING].shape


def _fitting(own: Mapping[str, Tensor], theirs: Shapes, folder: Path, ours: Callable[[str], bool]) -> Start:
    start = compare(shapes(_without_stats(own)), theirs, ours)
    _some(start, folder)
    if (WHITENING in own) != (WHITENING in theirs):
        wanted, here = ("true", "whitened") if WHITENING in theirs else ("false", "not whitened")
        raise ValueError(
            f"{folder} knows tokens that are {here}, and the generator that is to be trained would not see "
            f"them so; set generator.whiten={wanted}, or start without init"
        )
    return start


def _without_stats(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not name.startswith("stats.")}


def _other_condition(same_classes: bool, same_text: bool) -> Callable[[str], bool]:
    other = (() if same_classes else ("classes.",)) + (() if same_text else ("text.",))
    return lambda name: name.startswith(other) if other else False


def _some(start: Start, folder: Path) -> None:
    if not start.taken:
        raise ValueError(
            f"no weight of {folder} has a place in the model that is to be trained: their sizes differ "
            "throughout; choose the decoder and generator that it has, or start without init"
        )
