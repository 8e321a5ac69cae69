"""Initial weights with which an `AutoencoderKL` starts as a linear codec instead of as noise.

Residual branches start at zero, so that the signal takes the main path. In the encoder this path is the
principal component analysis of 8 x 8 blocks, built up from 2 x 2 patches level by level; in the decoder it is
the block's mean colour, interpolated. Two identities make it linear in spite of the last normalisation and
activation: constant channels of both signs fix a group's variance, and silu(x) - silu(-x) = x. Training
starts at what interpolated block colours reach, which saves most of the steps that a random start takes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CONSTANT = 2.0
SIGNAL = 0.5
LOG_VARIANCE = -6.0


@torch.no_grad()
def start_linear(model: Any, images: Tensor, equal: bool = True) -> None:
    """Overwrite the weights of `model` (one normalisation group), with statistics of images (B, 3, H, W).

    Args:
        model: an untrained diffusers `AutoencoderKL` with three halvings.
        images: a few hundred training crops in [-1, 1].
        equal: give all channels of the latent one deviation; otherwise each has that of its component, so
            that an error of a latent is the error that it makes in the picture.
    """
    for module in model.modules():
        if hasattr(module, "conv_shortcut"):  # a residual block
            nn.init.zeros_(module.conv2.weight)
            nn.init.zeros_(module.conv2.bias)
    spread = _start_encoder(model.encoder, images)
    half = model.config.latent_channels
    _clear(model.quant_conv)
    _clear(model.post_quant_conv)
    _carry(model.quant_conv, half)
    _carry(model.post_quant_conv, half)
    means = model.encode(images).latent_dist.mean
    scale = 1 / means.std((0, 2, 3))
    if not equal:
        scale *= spread / spread.square().mean().sqrt()
    model.quant_conv.weight[:half] *= scale.view(-1, 1, 1, 1)
    model.quant_conv.bias[half:] = LOG_VARIANCE
    _start_decoder(model.decoder, model.encode(images).latent_dist.mean, images)


def _start_encoder(encoder: Any, images: Tensor) -> Tensor:
    """Returns the deviations of the components that become channels of the latent."""
    _clear(encoder.conv_in)
    _carry(encoder.conv_in, 3)
    features = images
    for block in encoder.down_blocks:
        _carry_shortcuts(block.resnets, features.shape[1])
        if block.downsamplers is None:
            continue
        conv = block.downsamplers[0].conv
        channels = features.shape[1]
        patches = F.unfold(features, 2, stride=2)  # (B, C * 4, L)
        flat = patches.transpose(1, 2).flatten(0, 1)
        mean = flat.mean(0)
        basis = (
            torch.linalg.eigh(torch.cov(flat.T)).eigenvectors.flip(1)[:, : conv.out_channels].T
        )  # (K, C * 4)
        _clear(conv)
        conv.weight[: len(basis), :channels, :2, :2] = basis.view(len(basis), channels, 2, 2)
        conv.bias[: len(basis)] = -basis @ mean
        side = features.shape[-1] // 2
        features = (basis @ (patches - mean[:, None])).view(len(images), len(basis), side, side)
    last = encoder.down_blocks[-1].resnets[0].conv_shortcut
    width, count = last.out_channels, features.shape[1]
    kept = encoder.conv_out.out_channels // 2  # mean and log-variance of each latent channel
    spread = features[:, :kept].std((0, 2, 3))
    scale = SIGNAL / spread
    signal = torch.zeros(width, last.in_channels)
    signal[:kept, :kept], signal[kept : 2 * kept, :kept] = torch.diag(scale), -torch.diag(scale)
    free = min(count - kept, (width - 2 * kept) // 2)
    signal[2 * kept : 2 * kept + free, kept : kept + free] = torch.eye(free)
    last.weight.copy_(signal[..., None, None])
    last.bias.zero_()
    last.bias[2 * kept + free :] = _constants(width - 2 * kept - free)
    _start_output(encoder.conv_out, kept)
    return spread


def _start_decoder(decoder: Any, latents: Tensor, images: Tensor) -> None:
    colours = F.avg_pool2d(images, 8).permute(0, 2, 3, 1).reshape(-1, 3)
    codes = latents.permute(0, 2, 3, 1).reshape(len(colours), -1)
    solution = torch.linalg.lstsq(
        torch.cat([codes, torch.ones(len(codes), 1)], 1), colours
    ).solution  # (5, 3)
    weight, bias = solution[:-1].T * SIGNAL, solution[-1] * SIGNAL
    conv = decoder.conv_in
    spread = conv.weight[8:, :, 1, 1].clone()
    _clear(conv)
    conv.weight[8:, :, 1, 1] = spread
    conv.weight[:3, :, 1, 1], conv.weight[3:6, :, 1, 1] = weight, -weight
    conv.bias[:3], conv.bias[3:6] = bias, -bias
    conv.bias[6:] = _constants(conv.out_channels - 6)
    bilinear = torch.tensor([0.25, 0.5, 0.25])
    for block in decoder.up_blocks:
        _carry_shortcuts(block.resnets, conv.out_channels)
        if block.upsamplers is not None:
            up = block.upsamplers[0].conv
            nn.init.zeros_(up.bias)
            up.weight.zero_()
            for channel in range(up.out_channels):
                up.weight[channel, channel] = bilinear[:, None] * bilinear
    _start_output(decoder.conv_out, 3)
    made = decoder(latents)
    decoder.conv_out.weight *= (made * images).sum() / made.square().sum()


def _start_output(conv: nn.Conv2d, count: int) -> None:
    """Channel i minus channel i + count, after the activation, is the linear signal i."""
    _clear(conv)
    for channel in range(count):
        conv.weight[channel, channel, 1, 1] = 1.0
        conv.weight[channel, channel + count, 1, 1] = -1.0


def _clear(conv: nn.Conv2d) -> None:
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)


def _carry(conv: nn.Conv2d, count: int) -> None:
    """Pass the first `count` channels through the middle of the kernel."""
    middle = conv.kernel_size[0] // 2
    for channel in range(min(count, conv.out_channels, conv.in_channels)):
        conv.weight[channel, channel, middle, middle] = 1.0


def _carry_shortcuts(resnets: nn.ModuleList, count: int) -> None:
    for resnet in resnets:
        if resnet.conv_shortcut is not None:
            _clear(resnet.conv_shortcut)
            _carry(resnet.conv_shortcut, count)


def _constants(count: int) -> Tensor:
    return CONSTANT * (1 - 2 * (torch.arange(count) % 2)).float()
