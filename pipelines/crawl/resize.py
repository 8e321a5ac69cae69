"""Untrusted bytes to a small RGB JPEG; the modes are img2dataset's, and the pixels are near to its pixels."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from annotated_types import Interval
from PIL import Image

from pipelines.crawl.decode import Bounds, Decoded, Header
from pipelines.crawl.memory import MemoryBudget
from pipelines.crawl.phash import perceptual_hash
from pipelines.crawl.reasons import Failure
from reptok.bounds import Pixels, Quality, Whole

MODES = ("center_crop", "keep_ratio", "keep_ratio_largest", "border", "no")
SUBSAMPLINGS = ("4:2:0", "4:2:2", "4:4:4")
SCALED_DECODE_MARGIN = 1.25
"""A scaled decode keeps this many times the target's pixels per side; with fewer it would be seen."""

MAX_SIDE = 65_500
"""Pixels; no JPEG has longer sides."""
_RESULT_BYTES = 16  # of memory per pixel: scaled, cropped, as an image, as a file

_HASHED_SIDE = 128  # pixels of that picture; the hash is of 32

_BY_THE_SHORTER_SIDE = ("center_crop", "keep_ratio")


@dataclass(frozen=True, kw_only=True)
class ResizeConfig:
    """What an image must be, and what is made of it.

    Attributes:
        mode: "center_crop" (shorter side to `image_size`, then the central square), "keep_ratio" (no crop),
            "keep_ratio_largest" (longer side to `image_size`), "border" (that, then white up to a square) or
            "no" (the original's size).
        image_size: pixels of that side.
        quality: JPEG quality of the result.
        subsampling: of the result's colours: "4:2:0" (img2dataset's), "4:2:2" or "4:4:4".
        min_size: least pixels of the original's shorter side.
        max_aspect_ratio: largest ratio of longer to shorter side.
        max_pixels: most pixels of the original, judged by its header.
        max_memory_bytes: most memory that decoding and resizing take at a time, over all threads of a worker.
        hash_whole: keep the perceptual hash of the whole picture, too, and the list's own (`image_phash`): a
            filter compares them. It follows from data.filter_images.listed_hash.
    """

    mode: str = "center_crop"
    image_size: Pixels = 256
    quality: Quality = 95
    subsampling: str = "4:2:0"
    min_size: Whole = 64
    max_aspect_ratio: Annotated[float, Interval(ge=1, le=MAX_SIDE)] = 3.0
    max_pixels: Annotated[int, Interval(ge=1, le=1 << 30)] = 50_000_000
    max_memory_bytes: Annotated[int, Interval(ge=1 << 20, le=1 << 40)] = 512 * 1024 * 1024
    hash_whole: bool = field(default=False, metadata={"optional": True})

    def __post_init__(self) -> None:
        for name, known in (("mode", MODES), ("subsampling", SUBSAMPLINGS)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"resize {name} must be one of {', '.join(known)}, not {getattr(self, name)!r}"
                )

    @property
    def bounds(self) -> Bounds:
        """What `decode` judges by."""
        return Bounds(
            max_pixels=self.max_pixels, min_size=self.min_size, max_aspect_ratio=self.max_aspect_ratio
        )


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A resized image and where it came from.

    Attributes:
        jpg: the JPEG file; equal input gives equal bytes.
        width: pixels of the JPEG.
        height: pixels of the JPEG.
        original_width: pixels of the original as it is meant to be seen (after its EXIF orientation).
        original_height: likewise.
        sha256: of `jpg`.
        phash: perceptual hash of the result, 16 hex digits.
        whole_phash: the same of the whole picture, None unless it was asked for.
    """

    jpg: bytes
    width: int
    height: int
    original_width: int
    original_height: int
    sha256: str
    phash: str
    whole_phash: str | None = None


def resize(data: bytes, config: ResizeConfig, memory: MemoryBudget | None = None) -> Picture:
    """Decode an image of any kind and make the JPEG of it.

    Args:
        data: a whole file.
        config: what to make.
        memory: what this may take, if other threads do the same; by default all that `config` allows.

    Raises:
        Failure: see `Header`, and too_much_memory, truncated or undecodable.
    """
    header, budget = _header(data, config), memory or MemoryBudget(config.max_memory_bytes)
    with budget.taken(_bytes_to_resize(header, config)):
        decoded = header.decode()
        image = Image.fromarray(_fitted(decoded, config))
        file = io.BytesIO()
        image.save(file, "JPEG", quality=config.quality, subsampling=config.subsampling)
        jpg = file.getvalue()
        return Picture(
            jpg=jpg,
            width=image.width,
            height=image.height,
            original_width=decoded.width,
            original_height=decoded.height,
            sha256=hashlib.sha256(jpg).hexdigest(),
            phash=perceptual_hash(image),
            whole_phash=_whole_phash(decoded) if config.hash_whole else None,
        )


def resized(data: bytes, config: ResizeConfig) -> np.ndarray:
    """The pixels that `resize` encodes, uint8 (H, W, 3)."""
    return _fitted(_header(data, config).decode(), config)


def _header(data: bytes, config: ResizeConfig) -> Header:
    header = Header(data, config.bounds)
    if config.mode != "no":
        header.shrink(round(SCALED_DECODE_MARGIN * config.image_size))
    return header


def _scaled_sides(width: int, height: int, config: ResizeConfig) -> tuple[int, int]:
    """Width and height after scaling, before a crop or a border."""
    if config.mode == "no":
        return width, height
    judge = min if config.mode in _BY_THE_SHORTER_SIDE else max
    scale = config.image_size / judge(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _bytes_to_resize(header: Header, config: ResizeConfig) -> int:
    """The most memory that the picture takes on its way.

    Raises:
        Failure: too_elongated, if the result would be too long for a JPEG.
    """
    width, height = _scaled_sides(header.width, header.height, config)
    if max(width, height) > MAX_SIDE:
        raise Failure("too_elongated", f"{width} x {height} when resized")
    side = config.image_size
    result = max(width * height, side * side if config.mode == "border" else 0)
    return header.bytes_to_decode + _RESULT_BYTES * result


def _fitted(decoded: Decoded, config: ResizeConfig) -> np.ndarray:
    """Scale, then crop or pad: uint8 (H, W, 3)."""
    if config.mode == "no":
        return decoded.pixels
    side = config.image_size
    pixels = _scaled(
        decoded.pixels,
        *_scaled_sides(decoded.width, decoded.height, config),
        smooth=decoded.pixels.shape[1] < decoded.width,
    )
    height, width = pixels.shape[:2]
    if config.mode == "center_crop":
        top, left = (height - side) // 2, (width - side) // 2
        return pixels[top : top + side, left : left + side]
    if config.mode == "border":
        square = np.full((side, side, 3), 255, np.uint8)
        top, left = (side - height) // 2, (side - width) // 2
        square[top : top + height, left : left + width] = pixels
        return square
    return pixels


def _whole_phash(decoded: Decoded) -> str:
    """The perceptual hash of all that was decoded, by way of a small picture, which takes no memory."""
    small = _scaled(decoded.pixels, _HASHED_SIDE, _HASHED_SIDE, smooth=False)
    return perceptual_hash(Image.fromarray(small))


def _scaled(pixels: np.ndarray, width: int, height: int, *, smooth: bool) -> np.ndarray:
    """Average the area when shrinking, interpolate by Lanczos when growing.

    Args:
        pixels: uint8 (H, W, 3).
        width: of the result.
        height: of the result.
        smooth: a scaled decode has averaged already, so that less than a halving needs no area any more.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    import cv2  # 0.3 s: only a process that resizes pays for it

    cv2.setNumThreads(1)  # the workers are the parallelism
    ratio = min(pixels.shape[:2]) / min(width, height)
    how = cv2.INTER_AREA if ratio > 1 else cv2.INTER_LANCZOS4
    if smooth and 1 < ratio < 2:
        how = cv2.INTER_LINEAR
    return cv2.resize(pixels, (width, height), interpolation=how)
