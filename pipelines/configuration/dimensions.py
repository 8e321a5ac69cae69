"""The sizes of the networks that a configuration names: from their folder, or by name; nothing is fetched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from pipelines.configuration.construct import ConfigError
from pipelines.dag.reference import refer, required
from reptok.configs import AutoencoderConfig, EncoderConfig, TextEncoderConfig
from reptok.dimensions import (
    CONFIG,
    ENCODERS,
    TEXT_ENCODERS,
    VAES,
    EncoderDimensions,
    LatentDimensions,
    TextDimensions,
    encoder_dimensions,
    latent_dimensions,
    text_dimensions,
    tokenizer_image_size,
)

T = TypeVar("T")


def of_encoder(config: EncoderConfig) -> EncoderDimensions | None:
    """Sizes of the encoder.

    Raises:
        ConfigError: It has no name that is known, and no folder.
    """
    if config.path is not None:
        return _known(config.path, "encoder.path", {}, encoder_dimensions)
    if config.name not in ENCODERS:
        more = "; encoder.name=folder needs encoder.path" if config.name == "folder" else ""
        raise ConfigError(f"encoder.name is one of {', '.join(ENCODERS)}, not {config.name!r}{more}")
    return ENCODERS[config.name]


def of_vae(config: AutoencoderConfig) -> LatentDimensions | None:
    """Sizes of the VAE's latent; None for a model of the hub that nobody has seen here."""
    return _known(config.path, "vae.path", VAES, latent_dimensions)


def of_text_encoder(config: TextEncoderConfig) -> TextDimensions | None:
    """Sizes of the language model; None for a model of the hub that nobody has seen here."""
    if config.kind == "open_clip":
        return TEXT_ENCODERS.get(config.path)
    return _known(config.path, "text_encoder.path", TEXT_ENCODERS, text_dimensions)


def of_tokenizer(path: str, key: str) -> int:
    """Side in pixels of the images of a published tokenizer."""
    try:
        return tokenizer_image_size(required(path, key))
    except (OSError, ValueError) as error:
        raise ConfigError(_named(error, path, key)) from error


def _known(path: str, key: str, table: Mapping[str, T], read: Callable[[Path], T]) -> T | None:
    try:
        found = refer(path, key)
        if found.artifact:
            return None  # a stage is still to make it
        if found.folder:
            return read(found.folder)
        return table.get(found.hub.partition("@")[0]) or _fetched_before(found.hub, read)
    except (OSError, ValueError) as error:
        raise ConfigError(_named(error, path, key)) from error


def _named(error: Exception, path: str, key: str) -> str:
    text = str(error)
    return text if text.startswith(key) else f"{key}={path}: {text}"


def _fetched_before(hub: str, read: Callable[[Path], T]) -> T | None:
    """What the config.json says that an earlier run left in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    name, _, revision = hub.partition("@")
    file = try_to_load_from_cache(name, CONFIG, revision=revision or None)
    return read(Path(file).parent) if isinstance(file, str) else None
