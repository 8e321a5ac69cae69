"""The authors' tokenizer in this project's names and conventions.

Their decoder runs from data (0) to noise (1) and predicts noise - data. Ours runs the other way: the time's
direction sits in the decoder's Fourier features (they take 1 - t), the sign of the velocity goes into the
output weights here. Their [cls] embedding and its position are added once, the positions are resampled
once, as both are constants. Weights that cannot matter are left out: ``new_reg`` (its rows are dropped
before use, gradient exactly zero) and ``mask_token``.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from reptok.autoencoder import Autoencoder, build_vae
from reptok.configs import AutoencoderConfig, DecoderConfig, EncoderConfig, RepTokConfig
from reptok.encoder.ssl import SSLEncoder
from reptok.encoder.vit import Architecture, dinov2
from reptok.reference_weights.shapes import count, size
from reptok.tokenizer import RepTok
from reptok.weights import check_keys

DINO = "encoder.dino."
BLOCK_NAMES = {
    "attention.scale": "self_attn.scale",
    "attention_norm.linear.weight": "self_attn.norm.linear.weight",
    "attention.qkv.weight": "self_attn.qkv_proj.weight",
    "attention.out.weight": "self_attn.out_proj.weight",
    "ff_norm.linear.weight": "ff.norm.linear.weight",
    "ff.up.weight": "ff.up_proj.weight",
    "ff.down.weight": "ff.down_proj.weight",
}
DECODER_NAMES = {
    "patch_in.weight": "backbone.mid_merge.pre_proj.proj.weight",
    "sequence_in.weight": "backbone.mid_merge.proj.weight",
    "out_norm.scale": "backbone.mid_split.post_proj.norm.scale",
    "patch_out.weight": "backbone.mid_split.post_proj.proj.weight",
    "time.project.weight": "time_in_proj.weight",
    "time.in_norm.scale": "mapping.in_norm.scale",
    "time.out_norm.scale": "mapping.out_norm.scale",
}
MAPPING_NAMES = {
    "norm.scale": "norm.scale",
    "ff.up.weight": "up_proj.weight",
    "ff.down.weight": "down_proj.weight",
}
PROJECTION_NAMES = {
    "linear.weight": "backbone.fc.weight",
    "linear.bias": "backbone.fc.bias",
    "norm.weight": "backbone.ln.weight",
    "norm.bias": "backbone.ln.bias",
}


def import_tokenizer(
    monolith_state_dict: Mapping[str, Tensor],
    encoder_heads: int = 12,
    encoder_image_size: int = 224,
    vae_config: dict[str, Any] | None = None,
    latent_size: int | None = None,
) -> RepTok:
    """Build the tokenizer that a state dict of the authors' stage-1 model holds; no hub, no network.

    Args:
        monolith_state_dict: Their keys (844 for the released model) to tensors.
        encoder_heads: Attention heads of the vision transformer, which shapes do not show.
        encoder_image_size: Side of the square the encoder sees.
        vae_config: diffusers configuration of the VAE; by default SD-VAE's.
        latent_size: Side of the latents to sample; by default 32 (256 px).

    Raises:
        ValueError: Names every key that is missing, left over or of a wrong shape.
    """
    state = dict(monolith_state_dict)
    architecture = _vit_architecture(state, encoder_heads, encoder_image_size)
    encoder_config = EncoderConfig(name="folder", path="encoder", image_size=encoder_image_size)
    autoencoder = Autoencoder(AutoencoderConfig(path="autoencoder"), build_vae(vae_config))
    vit = architecture.build()
    decoder_config = _decoder_config(state, vit.num_features, autoencoder.channels, latent_size or 32)
    config = RepTokConfig(encoder=encoder_config, decoder=decoder_config, autoencoder=autoencoder.config)
    model = RepTok(config, encoder=SSLEncoder(encoder_config, vit, architecture), autoencoder=autoencoder)
    names = _names(model)
    ours = {k: v.shape for k, v in model.state_dict().items()}
    expected = {theirs: tuple(ours[k]) for k, theirs in names.items()} | _special_shapes(state, model)
    check_keys(expected, state, source="the authors' tokenizer checkpoint")
    _check_constants(state, model)
    model.load_state_dict({k: state[theirs].float() for k, theirs in names.items()}, strict=False)
    _load_special(state, model)
    return model


def _vit_architecture(state: Mapping[str, Tensor], heads: int, image_size: int) -> Architecture:
    model = DINO + "model."
    width = size(state, model + "cls_token", -1)
    plain = dinov2(
        width,
        count(state, re.escape(model) + r"blocks\.(\d+)\."),
        heads,
        patch_size=size(state, model + "patch_embed.proj.weight", -1),
        image_size=image_size,
        registers=size(state, model + "register_tokens", 1),
    )
    mlp_ratio = size(state, model + "blocks.0.mlp.fc1.weight", 0) / width
    return replace(plain, model_args={**plain.model_args, "mlp_ratio": mlp_ratio})


def _decoder_config(
    state: Mapping[str, Tensor], token_dim: int, channels: int, latent_size: int
) -> DecoderConfig:
    features = size(state, "backbone.mid_merge.pre_proj.proj.weight", 1)
    return DecoderConfig(
        width=size(state, "backbone.mid_merge.proj.weight", 0),
        depth=count(state, r"backbone\.mid_level\.(\d+)\."),
        heads=size(state, "backbone.mid_level.0.self_attn.scale", 0),
        patch_size=math.isqrt(features // channels),
        latent_channels=channels,
        latent_size=latent_size,
        mapping_width=size(state, "time_in_proj.weight", 0),
        mapping_depth=count(state, r"mapping\.blocks\.(\d+)\."),
        mapping_ff=size(state, "mapping.blocks.0.down_proj.weight", 1),
        ff=size(state, "backbone.mid_level.0.ff.down_proj.weight", 1),
        token_dim=token_dim,
    )


def _names(model: RepTok) -> dict[str, str]:
    """Our keys to theirs, for all tensors that are copied as they are."""
    names = {f"decoder.{k}": v for k, v in DECODER_NAMES.items()}
    names |= {f"projection.{k}": DINO + v for k, v in PROJECTION_NAMES.items()}
    for i in range(model.config.decoder.depth):
        names |= {f"decoder.blocks.{i}.{k}": f"backbone.mid_level.{i}.{v}" for k, v in BLOCK_NAMES.items()}
    for i in range(model.config.decoder.mapping_depth):
        names |= {f"decoder.time.blocks.{i}.{k}": f"mapping.blocks.{i}.{v}" for k, v in MAPPING_NAMES.items()}
    names |= {f"autoencoder.vae.{k}": f"ae.ae.{k}" for k in model.autoencoder.vae.state_dict()}
    names |= {
        f"encoder.vit.{k}": f"{DINO}model.{k}"
        for k in model.encoder.vit.state_dict()
        if k not in ("cls_token", "reg_token", "pos_embed")
    }
    names["encoder.vit.reg_token"] = DINO + "model.register_tokens"
    return names


def _special_shapes(state: Mapping[str, Tensor], model: RepTok) -> dict[str, tuple[int, ...]]:
    """Shapes of their tensors that are transformed, only checked, or left out."""
    d, config = model.encoder.dim, model.config.decoder
    positions = size(state, DINO + "model.pos_embed", 1)
    if math.isqrt(positions - 1) ** 2 != positions - 1:
        raise ValueError(
            f"{DINO}model.pos_embed has {positions} positions, which is no square grid and [cls]"
        )
    shapes: dict[str, tuple[int, ...]] = {
        "time_emb.weight": (config.mapping_width // 2, 1),
        DINO + "temp_pos_embed": (1, 1, 1, d),
        DINO + "new_reg": (1, 2, d),
        DINO + "model.cls_token": (1, 1, d),
        DINO + "model.pos_embed": (1, positions, d),
        DINO + "model.mask_token": (1, d),
    }
    for i in range(config.depth):
        shapes[f"backbone.mid_level.{i}.self_attn.pos_emb.freqs"] = tuple(model.decoder.frequencies.shape)
    own = {k: tuple(v.shape) for k, v in model.encoder.vit.state_dict().items()}
    own |= {"pos_embed": (1, positions, d), "mask_token": (1, d)}
    own["register_tokens"] = own.pop("reg_token")
    return shapes | {f"{DINO}target_model.{k}": v for k, v in own.items()}


def _check_constants(state: Mapping[str, Tensor], model: RepTok) -> None:
    """Warn where a checkpoint breaks what training keeps: the rotary frequencies and the frozen encoder."""
    formula = model.decoder.frequencies
    for i in range(model.config.decoder.depth):
        key = f"backbone.mid_level.{i}.self_attn.pos_emb.freqs"
        if not torch.allclose(state[key].float(), formula, rtol=1e-6, atol=1e-6):
            warnings.warn(f"{key} is not the fixed geometric series; the series is used", stacklevel=3)
    prefix = DINO + "target_model."
    changed = [
        key
        for key in (k.removeprefix(prefix) for k in state if k.startswith(prefix))
        if key != "cls_token" and not torch.equal(state[prefix + key], state[f"{DINO}model.{key}"])
    ]
    if changed:
        warnings.warn(
            f"the frozen encoder differs from the adapted one in more than cls_token ({len(changed)} keys, "
            f"first {changed[0]}); only its cls_token is kept",
            stacklevel=3,
        )


@torch.no_grad()
def _load_special(state: Mapping[str, Tensor], model: RepTok) -> None:
    """Fold positions into embeddings, resample the grid, turn the velocity round."""
    encoder = model.encoder
    position = state[DINO + "model.pos_embed"].float()
    encoder.vit.cls_token.copy_(state[DINO + "target_model.cls_token"].float() + position[:, :1])
    encoder.embedding.copy_((state[DINO + "model.cls_token"].float() + position[:, :1])[0])
    encoder.vit.pos_embed.copy_(_resample(position[:, 1:], encoder.vit.patch_embed.grid_size[0]))
    model.projection.offset.copy_(state[DINO + "temp_pos_embed"].float().reshape(1, -1))
    model.decoder.time.features.weight.copy_(state["time_emb.weight"].float()[:, 0])
    model.decoder.patch_out.weight.neg_()


def _resample(grid_positions: Tensor, side: int) -> Tensor:
    """Patch positions (1, n * n, D) on a side x side grid: bicubic, antialiased, in float32."""
    n = math.isqrt(grid_positions.shape[1])
    if n == side:
        return grid_positions
    grid = grid_positions.unflatten(1, (n, n)).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False, antialias=True)
    return grid.permute(0, 2, 3, 1).flatten(1, 2)
