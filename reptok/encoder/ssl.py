"""A frozen self-supervised vision transformer whose token embedding alone adapts (paper, section 3.1)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from reptok.configs import TOKENS, EncoderConfig
from reptok.encoder.preprocess import Preprocess
from reptok.encoder.tower import input_embeddings, tower_of
from reptok.encoder.vit import Architecture, dinov2, load_vit, resize_vit


class SSLEncoder(nn.Module):
    """Images to tokens. The unchanged original stays available as the target of the preservation loss.

    ``vit`` keeps the original embeddings; the adapted ones are ``embedding`` (K, D). Only with
    ``trainable="everything"`` is there a second, frozen copy of the transformer.
    """

    lr_roles: ClassVar = {"embedding": "cls"}

    def __init__(self, config: EncoderConfig, vit: Any, architecture: Architecture) -> None:
        super().__init__()
        self.config = config
        self.architecture = architecture
        self.dim: int = vit.num_features
        self.image_size = config.image_size
        self.num_tokens = config.num_tokens
        self.first_row = TOKENS.index(config.token)
        self.preprocess = Preprocess(config.image_size, architecture.mean, architecture.std)
        own = input_embeddings(vit)[self.first_row : self.first_row + config.num_tokens].detach().clone()
        if not len(own):
            raise ValueError(f"the encoder has no register, so that encoder.token={config.token!r} is none")
        self.extra_rows = config.num_tokens - len(own)
        self.vit = vit.requires_grad_(False)
        self.tower = tower_of(vit)
        if self.extra_rows and not self.tower.takes_extra_rows:
            raise ValueError(
                f"encoder.num_tokens={config.num_tokens} from {config.token!r} are more than the encoder's "
                f"{len(own)} rows, and its family takes no further ones"
            )
        own = torch.cat([own, further(own[:1], self.extra_rows)])
        for block in self.tower.called_in_parts(vit):
            block.called_in_parts = True
        self.original: Any = None
        if config.trainable == "everything":
            self.original = copy.deepcopy(vit)
            vit.requires_grad_(True)
            for parameter, start in ((vit.cls_token, 0), (vit.reg_token, 1)):  # replaced by `embedding`
                if parameter is not None and self.first_row <= start:
                    covered = start + parameter.shape[1] <= self.first_row + config.num_tokens
                    parameter.requires_grad_(not covered)
        self.embedding = nn.Parameter(own, requires_grad=config.trainable != "nothing")

    @property
    def original_vit(self) -> Any:
        """The transformer as it was before any adaptation."""
        return self.vit if self.original is None else self.original

    def forward(self, images: Tensor) -> Tensor:
        """Adapted tokens (B, K, D), after the final norm, of images (B, 3, H, W) in [-1, 1]."""
        return self.tower.token_rows(self.vit, self.preprocess(images), self.embedding, self.first_row)

    @torch.no_grad()
    def frozen(self, images: Tensor) -> Tensor:
        """The tokens (B, K, D) that the unadapted encoder gives: targets of the preservation loss.

        For rows beyond the encoder's own it is the first one's.
        """
        rows = input_embeddings(self.original_vit)[self.first_row : self.first_row + self.num_tokens]
        found = self.tower.token_rows(self.original_vit, self.preprocess(images), rows, self.first_row)
        return torch.cat([found, found[:, :1].expand(-1, self.extra_rows, -1)], dim=1)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """The unadapted [cls] (B, D), whichever rows are tokens; for nearest neighbours and distances."""
        vit = self.original_vit
        return self.tower.token_rows(vit, self.preprocess(images), input_embeddings(vit)[:1], 0)[:, 0]

    def trainable_keys(self) -> list[str]:
        """Names in ``state_dict`` of what adaptation changes; the rest is given by the configuration."""
        keys = ["embedding"]
        if self.config.trainable == "everything":
            keys += [f"vit.{k}" for k in self.vit.state_dict()]
        return keys


def further(row: Tensor, count: int) -> Tensor:
    """Further input embeddings (count, D): a row (1, D) with seeded noise of a tenth of its size.

    Equal rows would stay equal: nothing in the encoder tells them apart.
    """
    noise = torch.randn(count, row.shape[1], generator=torch.Generator().manual_seed(0))
    return row + 0.1 * row.square().mean().sqrt() * noise


Builder = Callable[[int], tuple[Any, Architecture]]


def _hub(name: str) -> Builder:
    def build(image_size: int) -> tuple[Any, Architecture]:
        architecture = Architecture(name=name)
        try:
            vit = architecture.build(pretrained=True)
        except Exception as error:
            raise OSError(
                f"the weights of {name} could not be fetched from the hub ({error}); set encoder.path to a "
                "local folder with its config.json and model.safetensors"
            ) from error
        pixels: Any = vit.pretrained_cfg
        return resize_vit(vit, image_size), replace(
            architecture, name=name.split(".")[0], mean=tuple(pixels["mean"]), std=tuple(pixels["std"])
        )

    return build


def _random(width: int, depth: int, heads: int, patch_size: int = 14) -> Builder:
    def build(image_size: int) -> tuple[Any, Architecture]:
        plain = dinov2(width, depth, heads, patch_size=patch_size, image_size=image_size)
        # A pretrained network's tiny layer scale would hide the image from an untrained [cls].
        architecture = replace(plain, model_args={**plain.model_args, "init_values": 1.0})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return architecture.build(), architecture

    return build


def _clip(model: str, pretrained: str) -> Builder:
    def build(image_size: int) -> tuple[Any, Architecture]:
        from reptok.encoder.clip import load_clip

        try:
            vit, architecture = load_clip(model, pretrained)
        except (OSError, RuntimeError) as error:
            raise OSError(
                f"open_clip could not fetch {model} ({error}); set encoder.path to a local folder"
            ) from error
        return resize_vit(vit, image_size), architecture

    return build


HUB = {
    "dinov2_vits14_reg": "vit_small_patch14_reg4_dinov2.lvd142m",
    "dinov2_vitb14_reg": "vit_base_patch14_reg4_dinov2.lvd142m",
    "dinov2_vitl14_reg": "vit_large_patch14_reg4_dinov2.lvd142m",
    "dinov3_vits16": "vit_small_patch16_dinov3.lvd1689m",
    "dinov3_vitb16": "vit_base_patch16_dinov3.lvd1689m",
    "dinov3_vitl16": "vit_large_patch16_dinov3.lvd1689m",
    "mae_vitb16": "vit_base_patch16_224.mae",
}
"""timm's names of the encoders whose weights the hub has."""

ENCODERS: dict[str, Builder] = {
    **{name: _hub(model) for name, model in HUB.items()},
    "clip_vitb16": _clip("ViT-B-16-quickgelu", "openai"),
    "random_vits14_reg": _random(384, 12, 6),
    "random_vitb14_reg": _random(768, 12, 12),
    "random_vitl14_reg": _random(1024, 24, 16),
    "random_vittiny16_reg": _random(192, 5, 12, patch_size=16),
    "random_vitdebug8_reg": _random(32, 2, 2, patch_size=8),
}


def build_encoder(config: EncoderConfig) -> SSLEncoder:
    """Build the encoder that ``config`` names, in float32.

    Raises:
        ValueError: The name is unknown or the sizes do not fit.
        FileNotFoundError: ``path`` holds no encoder folder.
        OSError: The hub cannot be reached.
    """
    if config.path is not None:
        vit, architecture = load_vit(Path(config.path), config.image_size)
    elif config.name in ENCODERS:
        vit, architecture = ENCODERS[config.name](config.image_size)
    elif config.name == "folder":
        raise ValueError('encoder.name is "folder", so encoder.path must name one')
    else:
        raise ValueError(
            f"unknown encoder {config.name!r}; choose one of {', '.join(ENCODERS)}, or folder with a path"
        )
    return SSLEncoder(config, vit, architecture)
