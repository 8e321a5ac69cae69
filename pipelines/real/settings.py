"""What `python -m pipelines real` may be told, as key=value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, get_type_hints

from reptok.bounds import Count, Positive
from reptok.values import from_values

CATS = "http://images.cocodataset.org/val2017/000000039769.jpg"
NOISE = (
    "https://huggingface.co/datasets/fusing/diffusers-testing/resolve/main/"
    "gaussian_noise_s=33_shape=4_3_512_512.npy"
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where things are and how much is done; every network may be a folder of the same format instead.

    Attributes:
        out: Folder of real.json, real.html and what they show.
        device: "cuda" or "cpu".
        only: Names of checks to run, with commas between; "" for all.
        picture: The picture that the publishers' values are of: a file or an address.
        noise: The noise that diffusers' values of the VAE are of, .npy float32 (B, 3, H, W): a file or an
            address.
        stated: JSON file of values by check that take the place of the publishers', for other weights.
        release: The authors' checkpoint, or the folder that `reptok import-release` made of it; "" skips it.
        encoder_size: Side in pixels of what encoders see.
        image_size: Side in pixels of what the VAE encodes and the training trains on.
        steps: Of the training.
        batch_size: Of the training.
        lr: Learning rate of the training.
        decoder_width: Of the decoder that is trained.
        decoder_depth: As above.
        decoder_heads: As above.
        dinov2: An encoder's name or a timm folder.
        dinov3: As above.
        mae: As above.
        mae_reference: The publisher's whole MAE, for transformers.
        clip: A CLIP in open_clip's format.
        clip_encoder: An encoder's name or a timm folder.
        clip_reference: The CLIP in open_clip's format that `clip_encoder` is the vision tower of.
        clip_text: A text tower of open_clip, MODEL/WEIGHTS or a folder.
        text_encoder: A CLIP text model for transformers.
        vae: An AutoencoderKL for diffusers.
        captioner: An InternVL for transformers.
    """

    out: str = "real"
    device: str = "cuda"
    only: str = ""
    picture: str = CATS
    noise: str = NOISE
    stated: str = ""
    release: str = ""
    encoder_size: Count = 224
    image_size: Count = 256
    steps: Count = 200
    batch_size: Count = 32
    lr: Positive = 3e-4
    decoder_width: Count = 768
    decoder_depth: Count = 12
    decoder_heads: Count = 12
    dinov2: str = "dinov2_vitb14_reg"
    dinov3: str = "dinov3_vits16"
    mae: str = "mae_vitb16"
    mae_reference: str = "facebook/vit-mae-base"
    clip: str = "timm/vit_base_patch32_clip_224.openai"
    clip_encoder: str = "clip_vitb16"
    clip_reference: str = "timm/vit_base_patch16_clip_224.openai"
    clip_text: str = "ViT-B-32/openai"
    text_encoder: str = "openai/clip-vit-large-patch14"
    vae: str = "stabilityai/sd-vae-ft-mse"
    captioner: str = "OpenGVLab/InternVL3-1B-hf"

    def __post_init__(self) -> None:
        if self.device not in ("cuda", "cpu"):
            raise ValueError(f"device is one of cuda, cpu, not {self.device!r}")
        if not self.out:
            raise ValueError("out= names the folder of the results")
        small = [name for name, kind in KINDS.items() if kind is not str and getattr(self, name) <= 0]
        if small:
            raise ValueError(f"{small[0]} must be above 0, got {getattr(self, small[0])}")


KINDS: dict[str, Any] = {name: kind for name, kind in get_type_hints(Settings).items()}


def parse(words: Sequence[str]) -> Settings:
    """Read key=value words.

    Raises:
        ValueError: One is none, names no setting, comes twice or has a value of another kind.
    """
    values: dict[str, Any] = {}
    known = [field.name for field in fields(Settings)]
    for word in words:
        key, separator, value = word.partition("=")
        if not separator or key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]}=?" if near else f"; there are: {', '.join(known)}"
            raise ValueError(f"real has no setting {word!r}{hint}")
        if key in values:
            raise ValueError(f"{key}= is given twice")
        try:
            values[key] = KINDS[key](value)
        except ValueError:
            raise ValueError(f"{key} is a number, not {value!r}") from None
    return from_values(Settings, values, "real")
