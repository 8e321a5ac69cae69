"""CLIP three times: as a score, as an encoder and as a language model.

The score and the text tower are open_clip's networks, the language model is transformers'; the encoder is the
vision tower rebuilt in timm. All of them have OpenAI's weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from transformers import AutoTokenizer, CLIPTextModel

from pipelines.real.check import Check, Measured
from pipelines.real.encoders import encoder
from pipelines.real.material import Material, numbers
from pipelines.real.settings import Settings
from reptok.configs import TextEncoderConfig
from reptok.folder import local_folder
from reptok.metrics.clip_score import ClipScore
from reptok.text_encoder import TextEncoder
from reptok.transformers_folder import LOCAL

CAT, DOG = "a photo of a cat", "a photo of a dog"


def checks(settings: Settings) -> list[Check]:
    """What loads CLIP in this project, each way once."""
    return [
        Check(
            what="CLIP ViT-B/32, by open_clip",
            place=settings.clip,
            load=lambda material: ClipScore.from_folder(settings.clip, str(material.device)),
            rows={"clip": logits},
        ),
        Check(
            what="CLIP ViT-B/16 as an encoder, by timm",
            place=settings.clip_encoder,
            load=lambda material: both_towers(settings, material),
            rows={"clip_encoder": lambda loaded, material: embedded(*loaded, material)},
        ),
        Check(
            what="CLIP ViT-B/32's text tower, by open_clip",
            place=settings.clip_text,
            load=lambda material: TextEncoder(
                TextEncoderConfig(kind="open_clip", path=settings.clip_text)
            ).to(material.device),
            rows={"clip_text": states_slice},
        ),
        Check(
            what="CLIP ViT-L/14's text model, by transformers",
            place=settings.text_encoder,
            load=lambda material: (
                TextEncoder(TextEncoderConfig(kind="clip", path=settings.text_encoder)).to(material.device),
                publisher(settings.text_encoder, material),
            ),
            rows={"text_encoder": lambda loaded, material: states(*loaded)},
        ),
    ]


def logits(score: ClipScore, material: Material) -> Measured:
    """100 times the cosines of the picture to both texts, CLIP's logits."""
    image = material.cropped(material.cats, score.image_size)
    return Measured(ours=numbers(100 * score.cosine(image.expand(2, -1, -1, -1), [CAT, DOG])))


def both_towers(settings: Settings, material: Material) -> tuple[Any, Any]:
    """Our encoder, for pictures of the size that open_clip's model takes, and that model."""
    theirs = ClipScore.from_folder(settings.clip_reference, str(material.device))
    return encoder(settings.clip_encoder, material, theirs.image_size), theirs.model


@torch.no_grad()
def embedded(ours: Any, theirs: Any, material: Material) -> Measured:
    """The image's embedding from our tower, beside that of open_clip's, of the same pixels."""
    image = material.cropped(material.cats, ours.image_size)
    token = ours.features(image)[0]
    direction = F.normalize(token @ theirs.visual.proj, dim=-1)
    expected = F.normalize(theirs.encode_image(ours.preprocess(image))[0], dim=-1)
    return Measured(
        ours=numbers(direction), theirs=numbers(expected), note=f"norm of [cls]: {float(token.norm()):.4f}"
    )


def states_slice(text_encoder: TextEncoder, material: Material) -> Measured:
    """Three numbers of three tokens."""
    found, _ = text_encoder([CAT])
    return Measured(ours=numbers(found[0, 1:4, 1:4]))


def publisher(place: str, material: Material) -> tuple[Any, Any]:
    """Tokenizer and text model, as their publisher says that they are used."""
    folder = Path(local_folder(place))
    model = CLIPTextModel.from_pretrained(folder, use_safetensors=True, **LOCAL)
    return AutoTokenizer.from_pretrained(folder, **LOCAL), model.eval().to(material.device)


@torch.no_grad()
def states(ours: TextEncoder, theirs: tuple[Any, Any]) -> Measured:
    """All states of a text, beside those of the publisher's class."""
    tokenizer, model = theirs
    expected = model(**tokenizer([CAT], return_tensors="pt").to(model.device)).last_hidden_state
    found, mask = ours([CAT, f"{CAT} and {DOG}"])  # the longer one pads the first
    return Measured(ours=numbers(found[0][mask[0]]), theirs=numbers(expected[0]))
