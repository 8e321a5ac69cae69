"""What `init` means for a plan: which trainings start from a published model, and with how much of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.configuration.construct import ConfigError
from pipelines.dag.reference import refer

if TYPE_CHECKING:
    from pipelines.configuration.schema import Config


def init_for(init: str, part: str) -> str:
    """The model that the training of a part starts from; "" if `init` has none of it.

    Of a model of the hub nothing is known before it is fetched: both trainings look.

    Raises:
        ValueError: It is no published model.
        FileNotFoundError: There is no such folder.
    """
    if not init:
        return ""
    found = refer(init, "init")
    if found.artifact:
        raise ConfigError(f"init={init}: start from a folder or a model of the hub, not from this run's own")
    return init if found.hub or place(found.folder, part) else ""


def place(folder: Path | None, part: str) -> Path | None:
    """As `part_of`; a `ConfigError` where it is no published model, None where there is no folder."""
    from reptok.training.start import part_of

    try:
        return None if folder is None else part_of(folder, part)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def remarks(config: Config) -> list[str]:
    """A line for each training that starts from a model in a folder: what is taken, and what is fresh.

    Raises:
        ConfigError: It does not fit: nothing has a place, or it makes another VAE's latents.
    """
    if not config.init:
        return []
    folder = refer(config.init, "init").folder
    if folder is None:
        return [f"init: {config.init} is on the hub; what fits is said when it is fetched"]
    import torch

    from reptok.decoder.transformer import Decoder
    from reptok.encoder.projection import TokenProjection
    from reptok.generator.generator import TokenGenerator
    from reptok.training.start import expect, same_network

    decoder, lines = config.decoder, []
    tokenizer, generator = place(folder, "tokenizer"), place(folder, "generator")
    try:
        if tokenizer and config.tokenizer == "reptok":
            vae = refer(config.vae.path, "vae.path").folder
            if vae and not same_network(vae, tokenizer / "autoencoder"):
                raise ConfigError(
                    f"init={config.init} paints the latents of another VAE than "
                    f"vae.path={config.vae.path}; set vae.path={tokenizer / 'autoencoder'}"
                )
            encoder = refer(config.encoder.path, "encoder.path").folder if config.encoder.path else None
            same = encoder is not None and same_network(encoder, tokenizer / "encoder")
            with torch.device("meta"):
                own = {f"decoder.{k}": v for k, v in Decoder(decoder).state_dict().items()}
                projection = TokenProjection(decoder.token_dim, decoder.width, decoder.num_tokens)
                own |= {f"projection.{k}": v for k, v in projection.state_dict().items()}
                own["encoder.embedding"] = torch.empty(decoder.num_tokens, decoder.token_dim)
            start = expect(own, tokenizer, lambda name: name.startswith("encoder.") and not same)
            lines.append(f"init: tokenizer from {config.init}: {start}")
        if generator:
            theirs = generator.parent / "text_encoder"
            mine = (
                refer(config.text_encoder.path, "text_encoder.path").folder if config.text_encoder else None
            )
            same = mine is not None and theirs.is_dir() and same_network(mine, theirs)
            with torch.device("meta"):
                state = TokenGenerator(config.generator).state_dict()
            start = expect(state, generator, lambda name: name.startswith("text.") and not same)
            lines.append(f"init: generator from {config.init}: {start}")
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"init={config.init}: {error}") from error
    return lines
