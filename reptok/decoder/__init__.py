"""The flow-matching decoder: from one token to the VAE latent of the image (paper, section 3.2)."""

from reptok.configs import DecoderConfig
from reptok.decoder.transformer import Decoder

__all__ = ["Decoder", "DecoderConfig"]
