"""What follows from what, and what contradicts: settled when a configuration is composed.

Widths, numbers of tokens, sizes of latents and images, and classes are never typed: they follow from the
networks and the pictures that the configuration names. One that is typed all the same must agree.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from pipelines import registry
from pipelines.configuration import dimensions, sources
from pipelines.configuration.cards import trained_on
from pipelines.configuration.compose import dotted, put
from pipelines.configuration.construct import ConfigError, construct
from pipelines.configuration.device import derive_device
from pipelines.configuration.follows import follows
from pipelines.dag.reference import ARTIFACT, find
from reptok.configs import AutoencoderConfig, EncoderConfig, TextEncoderConfig
from reptok.metrics.protocols import OWN

SQUARE = ("center_crop", "border")
SCORING = "evaluate"


def derive(values: dict[str, Any], extras: Mapping[str, Any]) -> dict[str, Any]:
    """The composed values with everything that follows from them.

    Raises:
        ConfigError: Two values contradict each other, or one cannot be known and is not typed. Names both
            keys, and what to do.
    """
    values = copy.deepcopy(values)
    derive_device(values)
    if values.get("workflow") == SCORING:  # the model that is scored brings its own networks and sizes
        _scored(values, extras)
        return values
    _sizes_of_pictures(values)
    _listed_hashes(values)
    _wanted(values, extras)
    source = sources.derive(values, extras)
    _tokens(values)
    _generator(values)
    _text(values)
    _classes(values, extras, source)
    _reference(values)
    _judge(values)
    put(values, "notes", [*source.notes, *trained_on(values)])
    return values


def _scored(values: dict[str, Any], extras: Mapping[str, Any]) -> None:
    """Of what a model is scored by: its own data have pictures of its size, no others are read."""
    own = values.get("protocol") == OWN
    if dotted(values, "data.image_size") is None:
        model = str(values.get("model") or "")
        folder = f"{model}/tokenizer" if find(f"{model}/tokenizer") else model
        put(
            values,
            "data.image_size",
            dimensions.of_tokenizer(folder, "model") if own and find(folder) else 256,
        )
    if own:
        _sizes_of_pictures(values)
        _listed_hashes(values)
        put(values, "notes", sources.derive(values, extras).notes)


def _sizes_of_pictures(values: dict[str, Any]) -> None:
    size = dotted(values, "data.image_size")
    if size is None:
        raise ConfigError("data.image_size has no value; give one with data.image_size=...")
    for stage in ("download.resize", "shard", "import_images"):
        follows(values, f"data.{stage}.image_size", size, "data.image_size")
    mode = dotted(values, "data.download.resize.mode")
    if mode is not None and mode not in SQUARE:
        raise ConfigError(
            f"data.download.resize.mode={mode} leaves pictures as they are, and a dataset's are squares of "
            f"data.image_size={size}; choose one of {', '.join(SQUARE)}"
        )


def _listed_hashes(values: dict[str, Any]) -> None:
    """Who compares pictures with the hashes of a list needs a list, and a download that takes such hashes."""
    key = "data.filter_images.listed_hash"
    if dotted(values, key) is None:
        return
    if place := dotted(values, "data.folder"):
        raise ConfigError(
            f"{key} compares with the hashes of a list of URLs, and data.folder={place} is none; leave it "
            f"out with {key}=null"
        )
    if (engine := dotted(values, "data.download.engine")) not in (None, "guarded"):
        raise ConfigError(
            f"{key} needs the hash of the whole picture, which data.download.engine={engine} does not take; "
            f"choose data.download.engine=guarded, or leave the filter out with {key}=null"
        )
    follows(values, "data.download.resize.hash_whole", True, key)


def _wanted(values: dict[str, Any], extras: Mapping[str, Any]) -> None:
    """What nobody captions need not be downloaded; of what filters refuse nobody knows how much it is."""
    wanted, key = dotted(values, "captioner.limit_samples"), "data.download.limit_samples"
    own = dotted(values, "data.filter_images") or {}
    filters = [name for name, value in own.items() if value and name != "workers"]
    if wanted and dotted(values, key) is None and not filters and not registry.chosen_filters(extras):
        put(values, key, wanted)


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
    if seen and encoder.token == "reg" and seen.rows == 1:
        raise ConfigError(f"encoder.token=reg needs a register, and {named} has [cls] alone")
    if seen and not seen.plain and encoder.num_tokens + (encoder.token == "reg") > seen.rows:
        raise ConfigError(
            f"encoder.num_tokens={encoder.num_tokens} from encoder.token={encoder.token} are more than "
            f"{named} has: [cls] and {seen.rows - 1} registers; only plain transformers take further ones"
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


def _judge(values: dict[str, Any]) -> None:
    """Who judges the tokenizer judges the generator."""
    key = "evaluate.judge"
    if (judge := dotted(values, key)) is not None:
        for part in ("tokenizer", "generator"):
            follows(values, f"evaluate.{part}.judge", judge, key)


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


def _classes(values: dict[str, Any], extras: Mapping[str, Any], source: sources.Chosen) -> None:
    """The classes are those of the pictures, as far as they could be counted."""
    if values["generator"].get("condition") != "class":
        return
    plugin = registry.chosen(extras)
    if plugin and (not source.place or source.place.startswith(ARTIFACT)):
        follows(values, "generator.num_classes", plugin.classes(extras[plugin.key]), plugin.key)
    else:
        follows(values, "generator.num_classes", source.classes, source.named)
