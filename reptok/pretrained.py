"""One folder per model: safetensors, JSON and a card; nothing in it executes.

model/  README.md  model.json (what is here, class names)
  tokenizer/     config.json  model.safetensors  latent_spec.json  encoder/  autoencoder/
  generator/     config.json  model.safetensors                      (if it generates)
  {part}/checkpoints/  weights of steps on the way, where the training kept some; see reptok/kept.py
  text_encoder/  a language model's own folder                       (if it reads text)
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reptok.autoencoder import Autoencoder, LatentSpec
from reptok.configs import (
    GeneratorConfig,
    LatentTokenizerConfig,
    RepTokConfig,
    TextEncoderConfig,
)
from reptok.decoder.transformer import Decoder
from reptok.encoder.vit import save_vit
from reptok.folder import check_folder, loading, local_folder, weight_shapes
from reptok.generator.generator import TokenGenerator
from reptok.kept import WEIGHTS, weights_of
from reptok.latent_tokenizer import LatentTokenizer
from reptok.model_card import default_card
from reptok.pipeline import RepTokPipeline
from reptok.text_encoder import TextEncoder
from reptok.tokenizer import RepTok
from reptok.values import from_values
from reptok.weights import check_keys, load_exact, load_weights, read_json, save_weights, write_json

FORMAT = 1
TOKENIZER, LATENT_TOKENIZER, GENERATOR = "tokenizer", "latent_tokenizer", "generator"
TEXT_CONFIG = "reptok_text_encoder.json"
TEXT_SUFFIXES = (".json", ".safetensors", ".txt", ".model", ".md")


def save_tokenizer(tokenizer: RepTok | LatentTokenizer, folder: str | Path) -> None:
    """Write a self-contained tokenizer folder: VAE, configuration, and RepTok's encoder and decoder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.autoencoder.save(folder / "autoencoder")
    write_json(folder / "latent_spec.json", asdict(tokenizer.autoencoder.spec))
    autoencoder = replace(tokenizer.config.autoencoder, path="autoencoder")
    if isinstance(tokenizer, LatentTokenizer):
        values = asdict(replace(tokenizer.config, autoencoder=autoencoder))
        write_json(folder / "config.json", {"format": FORMAT, "kind": LATENT_TOKENIZER, "config": values})
        return
    save_vit(tokenizer.encoder.original_vit, tokenizer.encoder.architecture, folder / "encoder")
    encoder = replace(tokenizer.config.encoder, name="folder", path="encoder")
    config = replace(tokenizer.config, encoder=encoder, autoencoder=autoencoder)
    save_weights(tokenizer.trainable_state_dict(), folder / WEIGHTS)
    write_json(folder / "config.json", {"format": FORMAT, "kind": TOKENIZER, "config": asdict(config)})


def load_tokenizer(folder: str | Path, step: int = 0) -> RepTok | LatentTokenizer:
    """Load what :func:`save_tokenizer` wrote, in evaluation mode on the CPU.

    Args:
        folder: Of a tokenizer.
        step: Of its training whose weights are loaded; 0 for the end.

    Raises:
        FileNotFoundError: The folder or a file of it is missing, or the step's weights were not kept.
        ValueError: The files do not fit together.
    """
    folder = Path(folder)
    kind, values = _config(folder, TOKENIZER, LATENT_TOKENIZER)
    source = folder / "config.json"
    config: RepTokConfig | LatentTokenizerConfig
    if kind == TOKENIZER:
        config = from_values(RepTokConfig, values, source)
    else:
        config = from_values(LatentTokenizerConfig, values, source)
    _check_place("autoencoder", config.autoencoder.path, folder)
    spec = from_values(
        LatentSpec, read_json(_existing(folder / "latent_spec.json")), folder / "latent_spec.json"
    )
    autoencoder = Autoencoder(replace(config.autoencoder, path=str(folder / "autoencoder")))
    spec.check(autoencoder.spec)
    config = replace(config, autoencoder=autoencoder.config)
    if isinstance(config, LatentTokenizerConfig):
        return LatentTokenizer(config, autoencoder=autoencoder).eval()
    _check_place("encoder", config.encoder.path, folder)
    config = replace(config, encoder=replace(config.encoder, path=str(folder / "encoder")))
    weights = weights_of(folder, step)
    _check_weights(weights, "decoder.", lambda: Decoder(config.decoder))
    tokenizer = RepTok(config, autoencoder=autoencoder)
    tokenizer.load_trainable_state_dict(load_weights(weights))
    return tokenizer.eval()


def save_generator(generator: TokenGenerator, folder: str | Path) -> None:
    """Write a generator folder, its token statistics included."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(generator.state_dict(), folder / WEIGHTS)
    values = asdict(generator.config)
    write_json(folder / "config.json", {"format": FORMAT, "kind": GENERATOR, "config": values})


def load_generator(folder: str | Path, step: int = 0) -> TokenGenerator:
    """Load what :func:`save_generator` wrote, in evaluation mode; all else as :func:`load_tokenizer`."""
    folder = Path(folder)
    config = from_values(GeneratorConfig, _config(folder, GENERATOR)[1], folder / "config.json")
    weights = weights_of(folder, step)
    _check_weights(weights, "", lambda: TokenGenerator(config))
    generator = TokenGenerator(config)
    load_exact(generator, load_weights(weights), source=str(weights))
    return generator.eval()


def save_pretrained(pipe: RepTokPipeline, folder: str | Path, *, card: str | None = None) -> None:
    """Write a whole model.

    Args:
        pipe: What to save.
        folder: Is created; files of an earlier save are replaced.
        card: Text of the model card; by default the parts and their sizes.
    """
    folder = Path(folder)
    save_tokenizer(pipe.tokenizer, folder / "tokenizer")
    if pipe.generator is not None:
        save_generator(pipe.generator, folder / "generator")
    if pipe.text_encoder is not None:
        _save_text_encoder(pipe.text_encoder, folder / "text_encoder")
    parts = [p for p in ("generator", "text_encoder") if getattr(pipe, p) is not None]
    (folder / "README.md").write_text(card if card is not None else default_card(pipe), encoding="utf-8")
    write_json(
        folder / "model.json",
        {"format": FORMAT, "parts": ["tokenizer", *parts], "class_names": pipe.class_names},
    )


def load_pretrained(
    path_or_hub_id: str | Path, *, tokenizer_step: int = 0, generator_step: int = 0
) -> RepTokPipeline:
    """Load a model folder, or a lone tokenizer folder, in evaluation mode on the CPU.

    Args:
        path_or_hub_id: A local folder; any other name is fetched from the Hugging Face hub.
        tokenizer_step: Of the tokenizer's training whose weights are loaded; 0 for the end.
        generator_step: Of the generator's, likewise.

    Raises:
        OSError: There is no such folder, and the hub has no such model or cannot be reached.
        ValueError: The files do not fit together, or lead out of the folder.
    """
    folder = local_folder(path_or_hub_id)
    check_folder(folder)
    if (folder / "config.json").is_file() and not (folder / "model.json").is_file():
        return RepTokPipeline(load_tokenizer(folder, tokenizer_step)).eval()
    model = read_json(_existing(folder / "model.json"))
    if model.get("format") != FORMAT:
        raise ValueError(
            f"{folder / 'model.json'} has format {model.get('format')}; this version reads format {FORMAT}"
        )
    parts: Any = model.get("parts")
    names = model.get("class_names")
    if not _texts(parts) or not (names is None or _texts(names)):
        raise ValueError(f"{folder / 'model.json'}: parts and class_names must be lists of texts")
    return RepTokPipeline(
        tokenizer=load_tokenizer(folder / "tokenizer", tokenizer_step),
        generator=load_generator(folder / "generator", generator_step) if "generator" in parts else None,
        text_encoder=_load_text_encoder(folder / "text_encoder") if "text_encoder" in parts else None,
        class_names=names,
    ).eval()


def _save_text_encoder(encoder: TextEncoder, folder: Path) -> None:
    """Copy a language model's folder, its hub's included, so that the model needs no other."""
    config = encoder.config
    if config.kind == "open_clip":
        encoder.save(folder)
    else:
        source = local_folder(config.path)
        folder.mkdir(parents=True, exist_ok=True)
        for file in sorted(source.iterdir()):
            target = folder / file.name
            wanted = file.is_file() and file.suffix in TEXT_SUFFIXES and file.name != TEXT_CONFIG
            if wanted and not (target.exists() and target.samefile(file)):
                shutil.copyfile(file, target)
    write_json(folder / TEXT_CONFIG, asdict(replace(config, path=".")))


def _load_text_encoder(folder: Path) -> TextEncoder:
    source = _existing(folder / TEXT_CONFIG)
    config = from_values(TextEncoderConfig, read_json(source), source)
    if config.path != ".":
        raise ValueError(
            f"{source} names the text encoder {config.path!r} elsewhere, which is not followed; copy its "
            f'folder beside the file and set "path": "."'
        )
    return TextEncoder(replace(config, path=str(folder)))


def _check_place(part: str, path: str | None, folder: Path) -> None:
    """A part lies in the folder of its name, whatever the configuration says; no path is followed."""
    if path != part:
        raise ValueError(f"{folder / 'config.json'}: the {part} lies in {part}/, not in {path!r}")


def _check_weights(weights: Path, prefix: str, build: Callable[[], nn.Module]) -> None:
    """Compare the weights' shapes with the configuration's before anything of those sizes is allocated."""
    if not weights.is_file():
        raise FileNotFoundError(f"weights are missing: {weights}")
    shapes = {k.removeprefix(prefix): v for k, v in weight_shapes([weights]).items() if k.startswith(prefix)}
    with loading(weights), torch.device("meta"):
        expected = {key: tuple(value.shape) for key, value in build().state_dict().items()}
    check_keys(expected, shapes, source=str(weights))


def _texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _config(folder: Path, *kinds: str) -> tuple[str, dict[str, Any]]:
    """What kind of part a folder holds, one of ``kinds``, and its configuration."""
    values = read_json(_existing(folder / "config.json"))
    kind = values.get("kind", "folder of another kind")
    if kind not in kinds:
        raise ValueError(f"{folder} holds a {kind}, not a {' or '.join(kinds)}")
    if values.get("format") != FORMAT:
        raise ValueError(f"{folder} has format {values.get('format')}; this version reads format {FORMAT}")
    return kind, values.get("config", {})


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise FileNotFoundError(f"{file.parent} is no RepTok folder: {file.name} is missing")
    return file
