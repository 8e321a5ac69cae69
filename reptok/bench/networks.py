"""Stand-ins for the frozen networks whose libraries a bare checkout lacks: as large, with random weights."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

SD_VAE = (128, 256, 512, 512)
"""Channels of the autoencoder of Stable Diffusion, by resolution."""


class _Residual(nn.Module):
    def __init__(self, channels_in: int, channels: int):
        super().__init__()
        self.norms = nn.ModuleList([nn.GroupNorm(32, c, eps=1e-6) for c in (channels_in, channels)])
        self.convolutions = nn.ModuleList(
            [nn.Conv2d(c, channels, 3, padding=1) for c in (channels_in, channels)]
        )
        same = channels_in == channels
        self.shortcut: nn.Module = nn.Identity() if same else nn.Conv2d(channels_in, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            y = convolution(F.silu(norm(y)))
        return self.shortcut(x) + y


class _Attention(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.GroupNorm(32, channels, eps=1e-6)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.norm(x).flatten(2).transpose(1, 2)  # (B, H * W, C)
        q, k, v = self.qkv(rows)[:, None].chunk(3, dim=-1)
        y = self.out(F.scaled_dot_product_attention(q, k, v)[:, 0])
        return x + y.transpose(1, 2).reshape(x.shape)


def _middle(channels: int) -> list[nn.Module]:
    return [_Residual(channels, channels), _Attention(channels), _Residual(channels, channels)]


def _end(channels: int, out: int) -> list[nn.Module]:
    return [nn.GroupNorm(32, channels, eps=1e-6), nn.SiLU(), nn.Conv2d(channels, out, 3, padding=1)]


def vae_encoder(channels: Sequence[int] = SD_VAE) -> nn.Module:
    """Images (B, 3, H, W) to moments (B, 8, H/8, W/8), as AutoencoderKL of two layers a block."""
    layers: list[nn.Module] = [nn.Conv2d(3, channels[0], 3, padding=1)]
    before = channels[0]
    for number, width in enumerate(channels):
        layers += [_Residual(before, width), _Residual(width, width)]
        if number < len(channels) - 1:
            layers += [nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(width, width, 3, stride=2)]
        before = width
    return nn.Sequential(*layers, *_middle(before), *_end(before, 8), nn.Conv2d(8, 8, 1))


def vae_decoder(channels: Sequence[int] = SD_VAE) -> nn.Module:
    """Latents (B, 4, h, w) to images (B, 3, 8 h, 8 w), as AutoencoderKL of two layers a block."""
    before = channels[-1]
    layers: list[nn.Module] = [nn.Conv2d(4, 4, 1), nn.Conv2d(4, before, 3, padding=1), *_middle(before)]
    for number, width in enumerate(reversed(channels)):
        layers += [_Residual(before, width), _Residual(width, width), _Residual(width, width)]
        if number < len(channels) - 1:
            layers += [nn.Upsample(scale_factor=2.0), nn.Conv2d(width, width, 3, padding=1)]
        before = width
    return nn.Sequential(*layers, *_end(before, 3))


class TextTower(nn.Module):
    """A language model of CLIP ViT-L/14's size: token numbers (B, L) to states (B, L, 768)."""

    def __init__(self, width: int = 768, depth: int = 12, heads: int = 12, vocabulary: int = 49408):
        super().__init__()
        self.heads = heads
        self.tokens = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList([_TextBlock(width, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class _TextBlock(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.ff = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        heads = self.qkv(self.norms[0](x)).unflatten(-1, (3 * self.heads, -1)).transpose(1, 2)
        q, k, v = heads.chunk(3, dim=1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        return x + self.ff(self.norms[1](x))
