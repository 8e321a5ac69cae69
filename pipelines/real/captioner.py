"""InternVL: the logits that its publisher's test states, and the sentence."""

from __future__ import annotations

import torch

from pipelines.real.check import Check, Measured
from pipelines.real.material import Material, numbers
from pipelines.real.settings import Settings
from reptok.captioner import InternVLCaptioner
from reptok.configs import VisionLanguageConfig

PROMPT = "Please describe the image explicitly."
LOGITS, TILES, TOKENS = 5, 12, 20
"""The publisher's preparation cuts a picture into up to twelve tiles beside a thumbnail."""


def checks(settings: Settings) -> list[Check]:
    """The captioner, in float16 on a GPU as its publisher tests it."""
    return [
        Check(
            what="InternVL3-1B, by transformers",
            place=settings.captioner,
            load=lambda material: load(settings, material),
            rows={"internvl": logits, "internvl_caption": caption},
        )
    ]


def load(settings: Settings, material: Material) -> InternVLCaptioner:
    """Load it by our own loader."""
    config = VisionLanguageConfig(
        path=settings.captioner, prompts=(PROMPT,), max_tiles=TILES, max_new_tokens=TOKENS
    )
    dtype = torch.float16 if material.device.type == "cuda" else torch.float32
    return InternVLCaptioner(config, str(material.device), dtype)


@torch.no_grad()
def logits(captioner: InternVLCaptioner, material: Material) -> Measured:
    """The first logits of the token after the question."""
    pixels, tiles = captioner.pixels([material.cats])
    asked = captioner.questions([PROMPT], tiles)
    found = captioner.model(**asked, pixel_values=pixels).logits[0, -1, :LOGITS]
    return Measured(ours=numbers(found), note=f"{tiles[0]} tiles, {asked['input_ids'].shape[1]} tokens")


def caption(captioner: InternVLCaptioner, material: Material) -> Measured:
    """The sentence that it writes."""
    ((written,),) = captioner([material.cats], [0])
    return Measured(ours=written.text)
