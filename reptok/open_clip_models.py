"""Models of open_clip: by their names, from files of weights, and as folders of our own.

Many were trained with an approximation of GELU, and their weights load just as well into a network without
it: which it is follows from the weights' name or file, and a contradiction is refused.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import _build_text_tower
from torch import Tensor, nn

from reptok.folder import check_folder, inside, loading, parse_json, read_bytes, weight_shapes
from reptok.weights import check_keys, load_exact, load_weights, save_weights, write_json

CONFIG, WEIGHTS = "open_clip_config.json", "model.safetensors"
WHOLE = ("open_clip_model.safetensors", WEIGHTS)
"""Files that may hold a whole model's weights; the first that is there does."""
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_SIZES = {"context_length": 1024, "vocab_size": 2**18, "width": 2**13, "heads": 2**7, "layers": 2**8}
_VISION = {"image_size": 2**11, "patch_size": 2**8, "width": 2**13, "head_width": 2**10, "layers": 2**8}
_OPENAI = {"input_resolution", "context_length", "vocab_size"}
"""Keys that OpenAI's own files have beside the weights."""


def create(name: str, weights: str | None) -> nn.Module:
    """Build a model by open_clip's names, as it was trained; None: untrained.

    Raises:
        ValueError: A name is none, or asks for an activation that the weights were not trained with.
        OSError: The weights cannot be fetched.
    """
    config = _named(name)
    quick = _trained_quick(name, weights) if weights else bool(config.get("quick_gelu"))
    if config.get("quick_gelu") and not quick:
        raise ValueError(f"{name}/{weights} was not trained with QuickGELU; take {_plain(name)}/{weights}")
    try:
        model: nn.Module = open_clip.create_model(name, pretrained=weights, force_quick_gelu=quick)
    except (OSError, RuntimeError) as error:
        raise OSError(f"open_clip could not fetch {name}/{weights} ({error})") from error
    return model


def from_file(name: str, path: Path) -> nn.Module:
    """Build a model of a name of open_clip around a file of weights; nothing in it is executed.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Keys are missing or left over, or the file tells of another activation than the name.
    """
    config = _named(name)
    state = _read(path)
    quick = _told_quick(path, state)
    if quick is not None and quick != bool(config.get("quick_gelu")):
        fitting = f"{name}-quickgelu" if quick else _plain(name)
        raise ValueError(
            f"{path} was trained {'with' if quick else 'without'} QuickGELU: take the architecture {fitting}"
        )
    model: nn.Module = open_clip.create_model(name, pretrained=None)
    load_exact(model, {key: state[key] for key in state.keys() - _OPENAI}, source=str(path))
    return model


def fetch_text_tower(path: str) -> Any:
    """The text tower of MODEL/WEIGHTS.

    Raises:
        ValueError: No weights are named, or the tower is another library's.
        OSError: They cannot be fetched.
    """
    name, _, weights = path.partition("/")
    if not weights:
        raise ValueError(
            f"text_encoder.path={path!r} names no weights; write MODEL/WEIGHTS, as in ViT-L-14/openai"
        )
    config = _named(name)
    text = dict(config["text_cfg"])
    if set(text) - set(_SIZES):
        raise ValueError(
            f"the text tower of {name} is not CLIP's own ({', '.join(text)}); choose another model"
        )
    state = create(name, weights).state_dict()
    quick = _trained_quick(name, weights)
    tower = _text_tower({"embed_dim": config["embed_dim"], "quick_gelu": quick, "text_cfg": text})
    load_exact(
        tower, {key: state[key if key in state else f"text.{key}"] for key in tower.state_dict()}, source=path
    )
    return tower


def save_text_tower(tower: Any, folder: Path) -> None:
    """Write a tower as a folder that stands alone."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / CONFIG, {"model_cfg": tower.model_cfg})
    save_weights(tower.state_dict(), folder / WEIGHTS)


def load_text_tower(folder: Path) -> Any:
    """Load what `save_text_tower` wrote.

    Raises:
        FileNotFoundError: The folder or a file is missing.
        ValueError: It holds something else, or its files do not fit together.
    """
    check_folder(folder)
    config = parse_json(read_bytes(inside(folder, CONFIG), 2**20), folder / CONFIG).get("model_cfg")
    if not isinstance(config, dict) or set(config) != {"embed_dim", "quick_gelu", "text_cfg"}:
        raise ValueError(
            f"{folder / CONFIG} is no text tower's: embed_dim, quick_gelu and text_cfg are expected"
        )
    text = config["text_cfg"]
    fits = isinstance(text, dict) and not set(text) - set(_SIZES) and isinstance(config["quick_gelu"], bool)
    sizes = [*text.items(), ("embed_dim", config["embed_dim"])] if fits else [("text_cfg", None)]
    for key, size in sizes:
        if type(size) is not int or not 1 <= size <= _SIZES.get(key, 2**13):
            raise ValueError(f"{folder / CONFIG}: {key} cannot be {size!r}")
    shapes = weight_shapes([inside(folder, WEIGHTS)])
    with loading(folder), torch.device("meta"):
        expected = {k: tuple(v.shape) for k, v in _text_tower(config).state_dict().items()}
    check_keys(expected, shapes, source=str(folder / WEIGHTS))
    tower = _text_tower(config)
    load_exact(tower, load_weights(folder / WEIGHTS), source=str(folder / WEIGHTS))
    return tower


def load_model(folder: Path) -> tuple[Any, list[float], list[float]]:
    """A whole CLIP from a folder as open_clip's hub has them, both towers its own transformers.

    Returns:
        The model, and mean and standard deviation of the pixels in [0, 1] that it expects.

    Raises:
        FileNotFoundError: The folder or a file is missing.
        ValueError: It holds something else, or its files do not fit together.
    """
    check_folder(folder)
    found = parse_json(read_bytes(inside(folder, CONFIG), 2**20), folder / CONFIG)
    config, pixels = found.get("model_cfg"), found.get("preprocess_cfg") or {}
    towers = {"vision_cfg": {*_VISION, "mlp_ratio"}, "text_cfg": set(_SIZES)}
    if not isinstance(config, dict) or not all(isinstance(config.get(key), dict) for key in towers):
        raise ValueError(f"{folder / CONFIG} describes no CLIP: vision_cfg and text_cfg are expected")
    for key, known in towers.items():
        if odd := set(config[key]) - known:
            raise ValueError(f"{folder / CONFIG}: {key} is not CLIP's own ({', '.join(sorted(odd))})")
        for name, size in config[key].items():
            if name != "mlp_ratio" and (
                type(size) is not int or not 1 <= size <= {**_VISION, **_SIZES}[name]
            ):
                raise ValueError(f"{folder / CONFIG}: {key}.{name} cannot be {size!r}")
    file = next((file for name in WHOLE if (file := inside(folder, name)).is_file()), None)
    if file is None:
        raise FileNotFoundError(f"{folder} has no weights: {' or '.join(WHOLE)}")
    shapes = weight_shapes([file])
    with loading(folder), torch.device("meta"):
        expected = {key: tuple(value.shape) for key, value in _whole(config).state_dict().items()}
    check_keys(expected, shapes, source=str(file))
    model = _whole(config)
    load_exact(model, load_weights(file), source=str(file))
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    return model, list(pixels.get("mean") or mean), list(pixels.get("std") or std)


def _whole(config: dict[str, Any]) -> Any:
    settings = {"vision_cfg": dict(config["vision_cfg"]), "text_cfg": dict(config["text_cfg"])}
    return open_clip.CLIP(config["embed_dim"], quick_gelu=bool(config.get("quick_gelu")), **settings)


def tokenizer_of(tower: Any) -> Any:
    """CLIP's tokenizer, for so many tokens as the tower reads."""
    return open_clip.SimpleTokenizer(context_length=tower.context_length)


def _text_tower(config: dict[str, Any]) -> Any:
    tower = _build_text_tower(config["embed_dim"], dict(config["text_cfg"]), config["quick_gelu"])
    tower.model_cfg = config
    return tower


def _named(name: str) -> dict[str, Any]:
    config = open_clip.get_model_config(name) if _NAME.fullmatch(name) else None
    if config is None:
        raise ValueError(f"open_clip has no model {name!r}; `open_clip.list_models()` names them")
    return dict(config)


def _trained_quick(name: str, weights: str) -> bool:
    found = open_clip.get_pretrained_cfg(name, weights)
    if not found:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name))
        raise ValueError(f"open_clip has no weights {weights!r} of {name}; there are: {tags or 'none'}")
    return bool(found.get("quick_gelu", False))


def _told_quick(path: Path, state: dict[str, Tensor]) -> bool | None:
    """What a file or the configuration beside it tells of the activation; None for nothing."""
    beside = path.parent / CONFIG
    if beside.is_file():
        config = parse_json(read_bytes(beside, 2**20), beside).get("model_cfg", {})
        if isinstance(config, dict):
            return bool(config.get("quick_gelu", False))
    return True if state.keys() >= _OPENAI else None


def _read(path: Path) -> dict[str, Tensor]:
    from reptok.metrics.features import load_foreign_weights

    state: Any = load_foreign_weights(path)
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds no state dict of CLIP")
    return {key.removeprefix("module."): value.float() if value.is_floating_point() else value
            for key, value in state.items()}  # fmt: skip


def _plain(name: str) -> str:
    return name.removesuffix("-quickgelu")
