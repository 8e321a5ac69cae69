"""What follows from what, and what contradicts: settled when a configuration is composed.

Widths, numbers of tokens, sizes of latents and images, and classes are never typed: they follow from the
networks and the pictures that the configuration names. One that is typed all the same must agree.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from pipelines import registry
from pipelines.configuration import dimensions
from pipelines.configuration.compose import dotted, put
from pipelines.configuration.construct import ConfigError, construct
from pipelines.configuration.device import derive_device
from pipelines.dag.reference import ARTIFACT
from pipelines.sources.layouts import open_source
from reptok.configs import AutoencoderConfig, EncoderConfig, TextEncoderConfig

SQUARE = ("center_crop", "border")


def derive(values: dict[str, Any], extras: Mapping[str, Any]) -> dict[str, Any]:
    """The composed values with everything that follows from them.

    Raises:
        ConfigError: Two values contradict each other, or one cannot be known and is not typed. Names both
            keys, and what to do.
    """
    values = copy.deepcopy(values)
    derive_device(values)
    _sizes_of_pictures(values)
    _tokens(values)
    _generator(values)
    _text(values)
    _classes(values, extras)
    _reference(values)
    return values


def follows(values: dict[str, Any], key: str, value: Any, because: str) -> None:
    """Set what follows from other keys, unless it is typed; then it must be the same.

    Args:
        values: The configuration.
        key: What follows.
        value: Its value; None where it cannot be known, and must be typed.
        because: From which key, in words that go on "it follows from".
    """
    typed = dotted(values, key)
    if value is None and typed is None:
        raise ConfigError(f"{key} would follow from {because}, which is not known here: give {key}=...")
    if typed is None:
        put(values, key, value)
    elif value is not None and typed != value:
        raise ConfigError(
            f"{key}={typed} contradicts {because}, from which {value} follows; leave {key} out, or change "
            "that"
        )


def _sizes_of_pictures(values: dict[str, Any]) -> None:
    size = dotted(values, "data.image_size")
    if size is None:
        raise ConfigError("data.image_size has no value; give one with data.image_size=...")
    places = ["data.download.resize.image_size", "data.shard.image_size"]
    if dotted(values, "data.import_images") is not None:
        places.append("data.import_images.image_size")
    for key in places:
        follows(values, key, size, "data.image_size")
    mode = dotted(values, "data.download.resize.mode")
    if mode is not None and mode not in SQUARE:
        raise ConfigError(
            f"data.download.resize.mode={mode} leaves pictures as they are, and a dataset's are squares of "
            f"data.image_size={size}; choose one of {', '.join(SQUARE)}"
        )


def _tokens(values: dict[str, Any]) -> None:
    """What the encoder and the VAE give, which is what the decoder and the generator work on."""
    encoder = construct(EncoderConfig, values.get("encoder", {}), "encoder")
    vae = construct(AutoencoderConfig, values.get("vae", {}), "vae")
    seen, latent = dimensions.of_encoder(encoder), dimensions.of_vae(vae)
    named = f"encoder.path={encoder.path}" if encoder.path else f"encoder.name={encoder.name}"
    width = seen.width if seen else None
    follows(values, "decoder.token_dim", width, named)
    follows(values, "decoder.num_tokens", encoder.num_tokens, "encoder.num_tokens")
    if seen and encoder.image_size % seen.patch_size:
        raise ConfigError(
            f"encoder.image_size={encoder.image_size} must be a multiple of {seen.patch_size}, the "
            f"patch size of {named}"
        )
    if seen and encoder.num_tokens + (encoder.token == "reg") > seen.rows:
        raise ConfigError(
            f"encoder.num_tokens={encoder.num_tokens} from encoder.token={encoder.token} are more than "
            f"{named} has: [cls] and {seen.rows - 1} registers"
        )
    inner, outer = dotted(values, "decoder.width"), dotted(values, "decoder.token_dim")
    if isinstance(inner, int) and inner < outer:
        raise ConfigError(
            f"decoder.width={inner} is less than the {outer} numbers of a token of {named}; choose a wider "
            "decoder (decoder=B, decoder=L, decoder=XL) or another encoder"
        )
    size, named = dotted(values, "data.image_size"), f"vae.path={vae.path}"
    follows(values, "decoder.latent_channels", latent and latent.channels, named)
    if latent and size % latent.downsample:
        raise ConfigError(
            f"data.image_size={size} must be a multiple of {latent.downsample}, which {named} asks"
        )
    because = f"data.image_size={size} and {named}"
    follows(values, "decoder.latent_size", latent and size // latent.downsample, because)
    side, patch = dotted(values, "decoder.latent_size"), dotted(values, "decoder.patch_size") or 2
    if side % patch:
        raise ConfigError(
            f"decoder.patch_size={patch} does not divide the latent's side {side}, which follows from "
            f"{because}"
        )


def _reference(values: dict[str, Any]) -> None:
    """The tokenizer that is shown beside this one must make images of the same size."""
    key = "evaluate.tokenizer.reference_tokenizer"
    path, size = dotted(values, key), dotted(values, "data.image_size")
    if path and values.get("tokenizer", "reptok") == "reptok":
        other = dimensions.of_tokenizer(path, key)
        if other != size:
            raise ConfigError(
                f"{key}={path} makes images of {other} px, and data.image_size is {size}; show none "
                f"with {key}="
            )


def _generator(values: dict[str, Any]) -> None:
    decoder = values["decoder"]
    if values.get("tokenizer", "reptok") == "latent":
        patch, channels = decoder.get("patch_size", 2), decoder["latent_channels"]
        because = "tokenizer=latent, decoder.patch_size and vae.path"
        follows(values, "generator.token_dim", patch**2 * channels, because)
        follows(values, "generator.num_tokens", (decoder["latent_size"] // patch) ** 2, because)
    else:
        follows(values, "generator.token_dim", decoder["token_dim"], "the encoder (decoder.token_dim)")
        follows(values, "generator.num_tokens", decoder["num_tokens"], "encoder.num_tokens")
    dim, heads = dotted(values, "generator.dim"), dotted(values, "generator.heads")
    attends = (
        dotted(values, "generator.kind") == "transformer" or values["generator"].get("condition") == "text"
    )
    if attends and isinstance(dim, int) and isinstance(heads, int) and heads > 0 and dim % heads:
        raise ConfigError(f"generator.dim={dim} must be a multiple of generator.heads={heads}")


def _text(values: dict[str, Any]) -> None:
    if values["generator"].get("condition") != "text":
        return
    if values.get("text_encoder") is None:
        raise ConfigError(
            "generator.condition=text needs a language model, and text_encoder is null; choose one, such as "
            "text_encoder=clip_l14, or a generator by class, such as generator=mixer_class_tiny"
        )
    config = construct(TextEncoderConfig, values["text_encoder"], "text_encoder")
    known = dimensions.of_text_encoder(config)
    named = f"text_encoder.path={config.path}"
    follows(values, "generator.text_dim", known and known.width, named)
    if known and known.max_length and config.max_length > known.max_length:
        raise ConfigError(
            f"text_encoder.max_length={config.max_length} is more than the {known.max_length} tokens that "
            f"{named} can read"
        )


def _classes(values: dict[str, Any], extras: Mapping[str, Any]) -> None:
    """Count the classes of the pictures, and keep the digest of their listing: many take long to list."""
    if values["generator"].get("condition") != "class":
        return
    folder, typed = dotted(values, "data.import_images.folder"), dotted(values, "generator.num_classes")
    made = str(folder or "").startswith(ARTIFACT)
    if folder and not made and typed is None:
        pictures = open_source(folder, dotted(values, "data.import_images.layout") or "auto")
        if pictures.num_classes == 0:
            raise ConfigError(
                f"generator.condition=class, and data.import_images.folder={folder} has no classes: put the "
                "pictures into one folder per class"
            )
        follows(values, "generator.num_classes", pictures.num_classes, f"data.import_images.folder={folder}")
        put(values, "data.import_images.listing", pictures.digest())
    elif made or not folder:
        source = registry.chosen(extras)
        classes = source.classes(extras[source.key]) if source else None
        follows(values, "generator.num_classes", classes, source.key if source else "the data")
