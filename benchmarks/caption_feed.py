"""What a captioner's GPU waits for: JPEG files to normalised 448 px tiles, against the PIL path.

The peer is transformers' own PIL image processor for InternVL, fed by PIL. Ours decodes at a reduced scale
and resizes bytes; it is charged for normalising too, although a GPU does that for free.
"""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from skimage import data
from torch import Tensor

from benchmarks.compare import Comparison, compare
from reptok.data.tiles import decode_tile, stack_tiles
from reptok.encoder.preprocess import IMAGENET_MEAN, IMAGENET_STD

TILE, BATCH = 448, 16
SIDES = (1024, 1200, 1600)
LEAST_PSNR = 34.0


def run() -> Comparison:
    """Tiles of one batch of photographs as the web has them, 1,024 to 1,600 px wide."""
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    torch.set_num_threads(1)
    files = _photographs()
    processor = GotOcr2ImageProcessorPil(
        size={"height": TILE, "width": TILE}, image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD
    )
    scale, shift = _affine()

    def ours() -> Tensor:
        tiles = stack_tiles([decode_tile(file, TILE) for file in files])
        return torch.addcmul(shift, tiles, scale)

    def theirs() -> Tensor:
        images = [Image.open(io.BytesIO(file)).convert("RGB") for file in files]
        return processor(images, return_tensors="pt")["pixel_values"]

    psnr = _psnr(ours(), theirs())
    if min(psnr) < LEAST_PSNR:
        raise RuntimeError(f"the tiles differ from the PIL path's: {min(psnr):.1f} dB")
    return compare(
        f"{BATCH} JPEGs of {SIDES[0]} to {SIDES[-1]} px to normalised {TILE} px tiles",
        ours,
        "PIL, and transformers' GotOcr2ImageProcessorPil",
        theirs,
        f"pixels within {min(psnr):.1f} dB or better, {float(np.mean(psnr)):.1f} dB on average",
    )


def _affine() -> tuple[Tensor, Tensor]:
    """Factor and offset (3, 1, 1) of bytes to normalised values."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return 1 / (255 * std), -mean / std


def _psnr(tiles: Tensor, others: Tensor) -> list[float]:
    """Of each tile, in dB of the original 8-bit range."""
    scale, _ = _affine()
    error = ((tiles - others) / scale).square().mean((1, 2, 3))
    return (10 * torch.log10(255**2 / error)).tolist()


def _photographs() -> list[bytes]:
    """A batch of JPEGs of usual qualities: photographs that scikit-image ships, enlarged where needed."""
    sources = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
    files = []
    for number in range(BATCH):
        image = Image.fromarray(sources[number % len(sources)])
        width = SIDES[number % len(SIDES)]
        image = image.resize((width, round(width * image.height / image.width)), Image.Resampling.LANCZOS)
        file = io.BytesIO()
        image.save(file, "JPEG", quality=80 + number % 4 * 4)
        files.append(file.getvalue())
    return files
