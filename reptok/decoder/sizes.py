"""Named sizes of the decoder; XL is the authors' (570 M parameters, 128.85 GMAC at a 32x32 latent)."""

from __future__ import annotations

from dataclasses import replace

from reptok.configs import DecoderConfig

SIZES = {
    "S": DecoderConfig(width=384, depth=12, heads=6, token_dim=384),
    "B": DecoderConfig(width=768, depth=12, heads=12),
    "L": DecoderConfig(width=1024, depth=24, heads=16),
    "XL": DecoderConfig(width=1152, depth=28, heads=16),
}


def decoder_size(name: str, *, token_dim: int, patch_size: int = 2, latent_size: int = 32) -> DecoderConfig:
    """The decoder called S, B, L or XL for tokens of ``token_dim`` and a square latent.

    Raises:
        ValueError: The name is unknown or the token is wider than the decoder.
    """
    if name not in SIZES:
        raise ValueError(f"unknown decoder size {name!r}; choose one of {', '.join(SIZES)}")
    return replace(SIZES[name], token_dim=token_dim, patch_size=patch_size, latent_size=latent_size)
