"""The pictures that are looked at, and the device: what every check is given."""

from __future__ import annotations

import importlib.util
import io
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipelines.real.settings import Settings
from reptok.data.images import centre_crop, decode_image
from reptok.data.transforms import to_float

MAX_BYTES = 2**25
TIMEOUT_SECONDS = 60.0
SHORTER_SIDE, CROP = 256, 224
"""Of DINOv2's and CLIP's own preparation; other sizes in proportion."""
SHIPPED = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "retina.jpg")
"""Pictures in colour that scikit-image brings."""


@dataclass(frozen=True)
class Material:
    """What checks work on.

    Attributes:
        settings: Of the command.
        device: Where networks compute.
    """

    settings: Settings
    device: torch.device
    fetched: dict[str, bytes | OSError] = field(default_factory=dict, repr=False, compare=False)

    @property
    def out(self) -> Path:
        """Folder of the results."""
        return Path(self.settings.out)

    @property
    def cats(self) -> np.ndarray:
        """The publishers' picture, uint8 (H, W, 3).

        Raises:
            OSError: It cannot be fetched, or is no picture.
        """
        data = self.read(self.settings.picture, "picture")
        try:
            return decode_image(data)
        except ValueError as error:
            raise OSError(f"picture={self.settings.picture} is no picture: {error}") from error

    def noise(self) -> Tensor:
        """The noise of diffusers' test, float32 (B, 3, H, W).

        Raises:
            OSError: It cannot be fetched, or is no such array.
        """
        data = self.read(self.settings.noise, "noise")
        try:
            array = np.load(io.BytesIO(data), allow_pickle=False)
        except ValueError as error:
            raise OSError(f"noise={self.settings.noise} is no array: {error}") from error
        if array.ndim != 4 or array.shape[1] != 3:
            raise OSError(f"noise={self.settings.noise} must be (B, 3, H, W), not {array.shape}")
        return torch.from_numpy(array.astype(np.float32)).to(self.device)

    @cached_property
    def shipped(self) -> list[np.ndarray]:
        """Pictures that are on every machine, each uint8 (H, W, 3).

        Raises:
            OSError: scikit-image is not installed.
        """
        spec = importlib.util.find_spec("skimage")
        if spec is None or not spec.submodule_search_locations:
            raise FileNotFoundError("scikit-image brings the pictures: install the `pipelines` extra")
        folder = Path(spec.submodule_search_locations[0]) / "data"
        return [decode_image((folder / name).read_bytes()) for name in SHIPPED if (folder / name).is_file()]

    def read(self, place: str, key: str) -> bytes:
        """A file, or what an address has; both are asked once.

        Raises:
            OSError: It cannot be had; says what to give instead.
        """
        if place not in self.fetched:
            self.fetched[place] = _read(place, key)
        found = self.fetched[place]
        if isinstance(found, OSError):
            raise found
        return found

    def cropped(self, picture: np.ndarray, side: int) -> Tensor:
        """As DINOv2 and CLIP are given it, the middle of all, float (1, 3, side, side) in [-1, 1]."""
        height, width = picture.shape[:2]
        scale = round(side * SHORTER_SIDE / CROP) / min(height, width)
        return self._resized(picture, (round(width * scale), round(height * scale)), "bicubic", side)

    def squeezed(self, picture: np.ndarray, side: int) -> Tensor:
        """As DINOv3 is given it, float (1, 3, side, side) in [-1, 1]: all of it, whatever its shape."""
        return self._resized(picture, (side, side), "bilinear", side)

    def fitted(self, picture: np.ndarray, side: int) -> Tensor:
        """The middle square as our datasets hold it, float (1, 3, side, side) in [-1, 1]."""
        return to_float(centre_crop(picture, side))[None].to(self.device)

    def _resized(self, picture: np.ndarray, size: tuple[int, int], how: str, side: int) -> Tensor:
        filters = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
        resized = np.asarray(Image.fromarray(picture).resize(size, filters[how]))
        top, left = ((length - side) // 2 for length in resized.shape[:2])
        square = resized[top : top + side, left : left + side]
        return to_float(np.ascontiguousarray(square))[None].to(self.device)


def _read(place: str, key: str) -> bytes | OSError:
    try:
        if not place.startswith(("http://", "https://")):
            return Path(place).expanduser().read_bytes()
        with urllib.request.urlopen(place, timeout=TIMEOUT_SECONDS) as answer:
            data: bytes = answer.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            return OSError(f"{place} has more than {MAX_BYTES} bytes")
        return data
    except (OSError, ValueError) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        return OSError(f"{place} cannot be read ({cause}); fetch it elsewhere and give {key}=FILE")


def numbers(values: Tensor | Sequence[float]) -> tuple[float, ...]:
    """A tensor's numbers, in the order in which they lie."""
    flat = values.detach().float().flatten().cpu().tolist() if isinstance(values, Tensor) else values
    return tuple(map(float, flat))
