"""What publishers state about their weights, with where they state it; nothing here was computed by us.

Most values are of one picture, number 39769 of COCO's val2017: two cats. Where a value is of a class of
transformers and ours is timm's or open_clip's, what is compared is what both must give for the same pixels.
The publishers' own tolerance (mostly 1e-4) is for their own resampling of the picture: ours is Pillow's,
which rounds to whole grey values, and other weights, statistics or positions would be off by about 1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

Values = tuple[float, ...] | str


@dataclass(frozen=True, kw_only=True)
class Stated:
    """One stated value.

    Attributes:
        of: What it is, in words.
        values: Numbers, or a text; None where the publisher's own code is run beside ours.
        tolerance: Largest difference that passes, of each number or of all.
        source: Who states it, and where.
    """

    of: str
    values: Values | None = None
    tolerance: tuple[float, ...] = (0.0,)
    source: str


def judge(ours: Values, theirs: Values, tolerance: tuple[float, ...]) -> tuple[float | None, bool]:
    """Hold ours against theirs.

    Returns:
        The largest difference (None for texts, and for numbers that are not as many), and whether it passes.
    """
    if isinstance(ours, str) or isinstance(theirs, str):
        return None, ours == theirs
    if len(ours) != len(theirs) or len(tolerance) not in (1, len(ours)):
        return None, False
    differences = [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
    allowed = tolerance * len(ours) if len(tolerance) == 1 else tolerance
    return max(differences), all(d <= most for d, most in zip(differences, allowed, strict=True))  # no NaN


HUGGING_FACE = "github.com/huggingface/transformers, tests/models"
STATED: Mapping[str, Stated] = {
    "dinov2": Stated(
        of="first three numbers of [cls], of transformers' Dinov2WithRegistersModel",
        values=(-0.4638, -1.4563, -0.0289),
        tolerance=(0.05,),
        source=f"{HUGGING_FACE}/dinov2_with_registers/test_modeling_dinov2_with_registers.py",
    ),
    "dinov3": Stated(
        of="first five numbers of [cls], of transformers' DINOv3ViTModel",
        values=(0.4637, -0.4160, 0.4086, -0.1265, -0.2865),
        tolerance=(0.05,),
        source=f"{HUGGING_FACE}/dinov3_vit/test_modeling_dinov3_vit.py",
    ),
    "mae_reference": Stated(
        of="predicted pixels [0, :3, :3] of transformers' ViTMAEForPreTraining, masked with numpy's seed 2; "
        "nothing of ours: that picture, weights and versions are those of the publisher",
        values=(-0.0548, -1.7023, -0.9325, 0.3721, -0.5670, -0.2233, 0.8235, -1.3878, -0.3524),
        tolerance=(0.05,),
        source=f"{HUGGING_FACE}/vit_mae/test_modeling_vit_mae.py",
    ),
    "mae": Stated(
        of="all numbers of [cls]; the publisher states none, so that its encoder is run beside ours, "
        "unmasked",
        tolerance=(0.005,),
        source="transformers' ViTMAEForPreTraining, run here; see mae_reference",
    ),
    "clip": Stated(
        of="100 x cosine to 'a photo of a cat' and 'a photo of a dog', of transformers' CLIPModel",
        values=(24.5701, 19.3049),
        tolerance=(0.1,),
        source=f"{HUGGING_FACE}/clip/test_modeling_clip.py",
    ),
    "clip_encoder": Stated(
        of="all numbers of the image's embedding, of length 1: our tower's [cls], projected by the "
        "publisher's matrix",
        tolerance=(0.001,),
        source="open_clip's encode_image, run here",
    ),
    "clip_text": Stated(
        of="states [1:4, 1:4] of 'a photo of a cat', of transformers' CLIPTextModel",
        values=(-0.5844, 0.3685, -2.0744, -0.9600, 1.0018, -0.2415, -0.5957, -0.1719, 0.4689),
        tolerance=(0.002,),
        source="github.com/elixir-nx/bumblebee, test/bumblebee/text/clip_text_test.exs, of the same weights",
    ),
    "text_encoder": Stated(
        of="all states of 'a photo of a cat'; the publisher states none, so that its class is run beside "
        "ours",
        tolerance=(0.001,),
        source="transformers' CLIPTextModel, run here",
    ),
    "vae_encoder": Stated(
        of="a sample [0, -1, -3:, -3:] of the posterior of seeded noise, by the encoder of Stable Diffusion "
        "1.4, which this VAE has unchanged (only its decoder was fine-tuned, its card says); ours is the "
        "mean",
        values=(-0.3001, 0.0918, -2.6984, -3.9720, -3.2099, -5.0353, 1.7338, -0.2065, 3.4267),
        tolerance=(0.003,),  # and four of the posterior's standard deviations, see `autoencoder`
        source="github.com/huggingface/diffusers, tests/models/autoencoders/test_models_autoencoder_kl.py, "
        "test_stable_diffusion_encode_sample",
    ),
    "vae": Stated(
        of="PSNR in dB and SSIM of the cats; stated are mean and deviation (3.7, 0.13) over the 5,000 "
        "pictures of COCO's val2017 at 256 px, of which this is one: two deviations pass",
        values=(24.5, 0.71),
        tolerance=(7.4, 0.26),
        source="huggingface.co/stabilityai/sd-vae-ft-mse, its card",
    ),
    "internvl": Stated(
        of="first five logits after 'Please describe the image explicitly.', in float16 on an A100",
        values=(11.9609, 14.7188, 14.2734, 10.6484, 6.9141),
        tolerance=(0.1,),
        source=f"{HUGGING_FACE}/internvl/test_modeling_internvl.py",
    ),
    "internvl_caption": Stated(
        of="the twenty likeliest tokens after that",
        values="The image shows two cats lying on a pink surface, which appears to be a bed or couch.",
        source=f"{HUGGING_FACE}/internvl/test_modeling_internvl.py",
    ),
    "release": Stated(
        of="mean PSNR in dB of reconstructions; stated is that of ImageNet's 50,000 validation images, ours "
        "of a few others: a decoder that paints something else has about 10",
        values=(14.94,),
        tolerance=(4.0,),
        source="the paper, arXiv 2510.14630, table of reconstructions",
    ),
    "training": Stated(
        of="loss at the end, as a share of the loss at the beginning; what passes is our own: below 0.9",
        values=(0.45,),
        tolerance=(0.45,),
        source="this command",
    ),
}  # fmt: skip


def stated_values(file: str) -> dict[str, Stated]:
    """The publishers' values, and those of a JSON object of values by name in their place.

    Raises:
        OSError: There is no such file.
        ValueError: It names no check, or a value is neither numbers nor a text.
    """
    if not file:
        return dict(STATED)
    given: Any = json.loads(Path(file).read_text(encoding="utf-8"))
    if not isinstance(given, dict) or given.keys() - STATED.keys():
        raise ValueError(f"{file} must hold an object of values by check: {', '.join(STATED)}")
    own = {name: _values(value, f"{file}: {name}") for name, value in given.items()}
    changed = {name: replace(STATED[name], values=value, source=file) for name, value in own.items()}
    return {**STATED, **changed}


def _values(value: Any, place: str) -> Values:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(type(entry) in (int, float) for entry in value):
        return tuple(map(float, value))
    raise ValueError(f"{place} must be numbers in a list, or a text")
