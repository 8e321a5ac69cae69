"""Self-supervised encoders: from an image to its token, and from the token to the decoder's width."""

from reptok.configs import EncoderConfig
from reptok.encoder.ssl import SSLEncoder, build_encoder

__all__ = ["EncoderConfig", "SSLEncoder", "build_encoder"]
