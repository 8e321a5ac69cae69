"""Sets of images in files that others made: ADM's `.npz`, a folder of pictures, a tar; never all in memory.

    samples.npz     arr_0 uint8 (N, H, W, 3); a reference also holds mu, sigma, mu_s, sigma_s
    folder/         pictures, in the order of their paths
    samples.tar     pictures, in the archive's order; what else is in it is passed over

B images at a time, H and W in pixels.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import torch
from torch import Tensor

from reptok.data.images import CROPS, decode_image
from reptok.data.untrusted_tar import MAX_DATA_BYTES, iterate_untrusted

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
IMAGES = "arr_0"


class ImageSet(Protocol):
    """Images in a fixed order."""

    path: Path

    def __len__(self) -> int: ...

    def batches(self, size: int, start: int = 0, stop: int | None = None) -> Iterator[Tensor]:
        """Yield uint8 (B, 3, H, W), `size` at a time, the last with what is left.

        Args:
            size: images at a time.
            start: number of the first image.
            stop: of the first that is not wanted any more; None for all.
        """
        ...


def open_images(path: str | Path, crop: str = "centre", side: int | None = None) -> ImageSet:
    """Open a set of images by what its path is.

    Args:
        path: `.npz`, `.tar` or a folder.
        crop: how a picture that is no square of `side` becomes one: a name of `reptok.data.images.CROPS`.
        side: pixels; None to take the first picture's, which all others must have.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: it is none of these, or holds no images.
    """
    path = Path(path)
    if path.is_dir():
        return _Pictures(path, crop, side)
    if not path.exists():
        raise FileNotFoundError(f"no images at {path}")
    if path.suffix == ".npz":
        return NpzImages(path)
    if path.suffix == ".tar":
        return _Pictures(path, crop, side)
    raise ValueError(f"{path} is no .npz, no .tar and no folder of pictures")


class NpzImages:
    """ADM's file of samples: `arr_0`, uint8 (N, H, W, 3), read as a stream."""

    def __init__(self, path: Path) -> None:
        """Read the header.

        Raises:
            ValueError: the file is damaged or holds no such array.
        """
        self.path = path
        with _member(path, IMAGES) as (_, shape, dtype):
            if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3:
                raise ValueError(f"{path}: {IMAGES} is {dtype} {shape}, not uint8 (N, H, W, 3)")
            self._shape = shape

    def __len__(self) -> int:
        return self._shape[0]

    def batches(self, size: int, start: int = 0, stop: int | None = None) -> Iterator[Tensor]:
        row, stop = int(np.prod(self._shape[1:])), len(self) if stop is None else min(stop, len(self))
        with _member(self.path, IMAGES) as (file, _, _):
            file.seek(start * row, os.SEEK_CUR)
            for first in range(start, stop, size):
                number = min(size, stop - first)
                data = _exactly(file, number * row, self.path)
                pixels = np.frombuffer(data, np.uint8).reshape(number, *self._shape[1:])
                yield torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2)


class NpzWriter:
    """Write ADM's `.npz` image by image, their number known before the first."""

    def __init__(self, file: BinaryIO, images: int, side: int) -> None:
        self._shape, self._left = (images, side, side, 3), images
        self._archive = zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True)
        info = zipfile.ZipInfo(f"{IMAGES}.npy", (1980, 1, 1, 0, 0, 0))  # the same images are the same bytes
        self._member = self._archive.open(info, "w", force_zip64=True)
        header = {"descr": "|u1", "fortran_order": False, "shape": self._shape}
        np.lib.format.write_array_header_1_0(self._member, header)

    def add(self, images: Tensor) -> None:
        """Append uint8 (B, 3, side, side).

        Raises:
            ValueError: other images than were announced.
        """
        pixels = images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        if pixels.dtype != np.uint8 or pixels.shape[1:] != self._shape[1:] or len(pixels) > self._left:
            raise ValueError(
                f"{self._left} images {self._shape[1:]} are to come, not {pixels.dtype} {pixels.shape}"
            )
        self._member.write(pixels.tobytes())
        self._left -= len(pixels)

    def close(self) -> None:
        """End the file.

        Raises:
            ValueError: images are missing.
        """
        if self._left:
            raise ValueError(f"{self._left} of {self._shape[0]} images were not written")
        self._member.close()
        self._archive.close()


def holds_images(path: Path) -> bool:
    """Whether an `.npz` has an array of images.

    Raises:
        ValueError: it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return f"{IMAGES}.npy" in archive.namelist()
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def npz_moments(path: str | Path) -> dict[str, Tensor]:
    """The moments that a reference file brings: `mu` (D,) and `sigma` (D, D), `mu_s` and `sigma_s`, float64.

    Raises:
        ValueError: they do not fit each other or are not finite.
    """
    found: dict[str, Tensor] = {}
    with np.load(path, allow_pickle=False) as file:
        for mu, sigma in (("mu", "sigma"), ("mu_s", "sigma_s")):
            if mu in file and sigma in file:
                found |= {n: torch.from_numpy(np.array(file[n], np.float64)) for n in (mu, sigma)}
    for suffix in {name.removeprefix("mu") for name in found if name.startswith("mu")}:
        mean, covariance = found[f"mu{suffix}"], found[f"sigma{suffix}"]
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
            raise ValueError(
                f"{path}: mu{suffix} {tuple(mean.shape)} and sigma{suffix} {tuple(covariance.shape)} "
                "do not fit"
            )
        if not (torch.isfinite(mean).all() and torch.isfinite(covariance).all()):
            raise ValueError(f"{path}: mu{suffix} or sigma{suffix} is not finite")
    return found


class _Pictures:
    """Picture files of a folder or a tar."""

    def __init__(self, path: Path, crop: str, side: int | None) -> None:
        self.path, self._crop, self._asked = path, CROPS[crop], side
        self._first = 0  # side of the first picture, where no side was asked for
        if not len(self):
            raise ValueError(f"{path} holds no pictures ({', '.join(PICTURES)})")

    @cached_property
    def _names(self) -> list[str]:
        if self.path.is_dir():
            found = (
                file for file in self.path.rglob("*") if file.suffix.lower() in PICTURES and file.is_file()
            )
            return sorted(file.relative_to(self.path).as_posix() for file in found)
        with open(self.path, "rb") as tar:
            return [member.path for member in iterate_untrusted(tar) if _is_picture(member.path)]

    def __len__(self) -> int:
        return len(self._names)

    def batches(self, size: int, start: int = 0, stop: int | None = None) -> Iterator[Tensor]:
        batch: list[np.ndarray] = []
        for name, data in self._files(start, len(self) if stop is None else stop):
            batch.append(self._square(name, data))
            if len(batch) == size:
                yield torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2)
                batch = []
        if batch:
            yield torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2)

    def _files(self, start: int, stop: int) -> Iterator[tuple[str, bytes]]:
        if self.path.is_dir():
            for name in self._names[start:stop]:
                yield name, (self.path / name).read_bytes()
            return
        number, inside = -1, False

        def wanted(name: str) -> int | None:
            nonlocal number, inside
            number += _is_picture(name)
            inside = _is_picture(name) and start <= number < stop
            return MAX_DATA_BYTES if inside else None

        with open(self.path, "rb") as tar:
            for member in iterate_untrusted(tar, wanted=wanted):
                if inside:
                    if member.refused:
                        raise ValueError(f"{self.path}: {member.path} may not be read: {member.refused}")
                    yield member.path, member.data
                inside = False  # nobody is asked about folders
                if number + 1 >= stop:
                    return

    def _square(self, name: str, data: bytes) -> np.ndarray:
        try:
            pixels = decode_image(data)
        except ValueError as error:
            raise ValueError(f"{self.path}: {name}: {error}") from error
        if self._asked is not None:
            return self._crop(pixels, self._asked)
        height, width = pixels.shape[:2]
        self._first = self._first or width
        if (height, width) != (self._first, self._first):
            raise ValueError(
                f"{self.path}: {name} is {width} x {height}, no square of {self._first} like the first: "
                "say which side to crop to"
            )
        return pixels


def _is_picture(name: str) -> bool:
    return name.lower().endswith(PICTURES)


@contextmanager
def _member(path: Path, name: str) -> Iterator[tuple[BinaryIO, tuple[int, ...], np.dtype]]:
    """An array of an `.npz` as a stream after its header, with shape and type."""
    try:
        with zipfile.ZipFile(path) as archive:
            if f"{name}.npy" not in archive.namelist():
                raise ValueError(f"{path} holds no {name}; it holds {', '.join(archive.namelist()[:10])}")
            with archive.open(f"{name}.npy") as file:
                version = np.lib.format.read_magic(file)
                read = (
                    np.lib.format.read_array_header_1_0
                    if version == (1, 0)
                    else np.lib.format.read_array_header_2_0
                )
                shape, fortran, dtype = read(file)
                if fortran:
                    raise ValueError(f"{path}: {name} lies in Fortran's order")
                yield file, shape, dtype  # type: ignore[misc]
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _exactly(file: BinaryIO, size: int, path: Path) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise ValueError(f"{path} ends before its last image")
    return data
