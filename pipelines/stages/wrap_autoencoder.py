"""Stage wrap_autoencoder: the VAE's latent takes the place of RepTok's token, for the attention baselines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pipelines.dag.reference import located
from pipelines.dag.stage import Artifact, Stage, Workspace
from reptok.configs import LatentTokenizerConfig


@dataclass(frozen=True, kw_only=True)
class WrapAutoencoderConfig:
    """The latents to generate.

    Attributes:
        tokenizer: VAE, image size and patch size.
    """

    tokenizer: LatentTokenizerConfig = field(default_factory=LatentTokenizerConfig)


class WrapAutoencoder(Stage):
    """Publish the frozen VAE as a tokenizer of many tokens; nothing trains."""

    name, output = "wrap_autoencoder", "tokenizer"
    modules = ("diffusers.models.autoencoders.autoencoder_kl", "reptok.pretrained")
    config: WrapAutoencoderConfig

    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        from reptok.latent_tokenizer import LatentTokenizer
        from reptok.pretrained import save_tokenizer

        config = self.config.tokenizer
        tokenizer = LatentTokenizer(replace(config, autoencoder=located(config.autoencoder, inputs)))
        folder = out.scratch / "tokenizer"
        save_tokenizer(tokenizer, folder)
        out.publish_folder(folder)
        return {"tokens": float(tokenizer.num_tokens), "token_dim": float(tokenizer.token_dim)}
