"""From any bytes to a small RGB JPEG, or to a reason."""

from __future__ import annotations

import contextlib
import hashlib
import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.crawl.phash import perceptual_hash
from pipelines.crawl.reasons import Failure
from pipelines.crawl.resize import MODES, Picture, ResizeConfig, resize, resized

CONFIG = ResizeConfig(image_size=64, min_size=32, max_pixels=4_000_000)


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(picture: Picture) -> np.ndarray:
    image = Image.open(io.BytesIO(picture.jpg))
    assert (image.format, image.mode) == ("JPEG", "RGB")
    assert image.size == (picture.width, picture.height)
    return np.asarray(image).astype(int)


def quarters(width: int = 200, height: int = 200) -> Image.Image:
    """Red, green / blue, white."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = (255, 0, 0)
    image[: height // 2, width // 2 :] = (0, 255, 0)
    image[height // 2 :, : width // 2] = (0, 0, 255)
    image[height // 2 :, width // 2 :] = 255
    return Image.fromarray(image)


def corners(picture: Picture) -> list[tuple[int, ...]]:
    image = pixels(picture)
    points = ((8, 8), (8, -8), (-8, 8), (-8, -8))
    return [tuple(int(v > 127) for v in image[y, x]) for y, x in points]


RED, GREEN, BLUE, WHITE = (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)


def reason(data: bytes, config: ResizeConfig = CONFIG) -> str:
    with pytest.raises(Failure) as failure:
        resize(data, config)
    return failure.value.reason


@pytest.mark.parametrize("size", [(200, 200), (333, 200), (200, 333), (64, 64), (40, 48), (1600, 1024)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_center_crop_is_the_central_square(size: tuple[int, int], kind: str) -> None:
    picture = resize(encode(quarters(*size), kind, quality=95), CONFIG)
    assert (picture.width, picture.height) == (64, 64)
    assert (picture.original_width, picture.original_height) == size
    assert corners(picture) == [RED, GREEN, BLUE, WHITE]


def test_keep_ratio_scales_the_shorter_side_alone() -> None:
    picture = resize(encode(quarters(300, 200)), ResizeConfig(mode="keep_ratio", image_size=64))
    assert (picture.width, picture.height) == (96, 64)


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="center_crop, keep_ratio"):
        ResizeConfig(mode="stretch")


def test_scaling_averages_the_area() -> None:
    stripes = np.zeros((512, 512), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(pixels(resize(encode(Image.fromarray(stripes)), CONFIG)) - 127.5).max() < 6


def test_a_scaled_jpeg_decode_looks_like_a_full_one() -> None:
    rows, columns = np.mgrid[0:1024, 0:1024]
    waves = 127.5 + 100 * np.sin(rows / 60) * np.cos(columns / 45)
    image = Image.fromarray(np.stack([waves, waves[::-1], waves.T], -1).astype(np.uint8))
    scaled = pixels(resize(encode(image, "JPEG", quality=95, subsampling=0), CONFIG))
    full = pixels(resize(encode(image, "PNG"), CONFIG))
    assert np.abs(scaled - full).mean() < 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    image = quarters(240, 200)
    stored = image.transpose(undo[orientation]) if orientation in undo else image
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = resize(encode(stored, "JPEG", quality=95, exif=exif.tobytes()), CONFIG)
    assert corners(picture) == [RED, GREEN, BLUE, WHITE]
    assert (picture.original_width, picture.original_height) == (240, 200)


def test_every_mode_becomes_rgb_with_the_right_values() -> None:
    def value(data: bytes) -> tuple[int, ...]:
        return tuple(int(v) for v in pixels(resize(data, CONFIG))[32, 32])

    def near(data: bytes, *expected: int) -> None:
        assert np.abs(np.subtract(value(data), expected)).max() <= 3

    size = (64, 64)
    sixteen = Image.fromarray(np.full((64, 64), 200 * 257, np.uint16))
    near(encode(sixteen), 200, 200, 200)
    near(encode(Image.new("L", size, 77)), 77, 77, 77)
    near(encode(Image.new("1", size, 1)), 255, 255, 255)
    near(encode(Image.new("LA", size, (0, 0))), 255, 255, 255)
    near(encode(Image.new("RGBA", size, (255, 0, 0, 128))), 255, 127, 127)
    near(encode(Image.new("RGB", size, (200, 10, 30)).quantize()), 200, 10, 30)
    near(encode(Image.new("RGB", size, (0, 90, 0)).quantize(), transparency=0), 255, 255, 255)
    near(encode(Image.new("CMYK", size, (0, 255, 255, 0)), "JPEG", quality=95), 255, 0, 0)
    near(encode(Image.new("RGB", size, (9, 9, 200)), "WEBP", lossless=True), 9, 9, 200)
    frames = [Image.new("RGB", size, color) for color in ((200, 0, 0), (0, 200, 0))]
    near(encode(frames[0], "GIF", save_all=True, append_images=frames[1:]), 200, 0, 0)


def test_the_same_bytes_give_the_same_bytes() -> None:
    data = encode(quarters(), "JPEG")
    first, second = resize(data, CONFIG), resize(data, CONFIG)
    assert first == second
    assert first.sha256 == hashlib.sha256(first.jpg).hexdigest()
    assert len(first.phash) == 16 and int(first.phash, 16)


def test_the_perceptual_hash_survives_another_encoding_and_tells_pictures_apart() -> None:
    rng = np.random.default_rng(0)

    def blobs() -> Image.Image:
        return Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).resize((256, 256))

    def distance(a: bytes, b: bytes) -> int:
        return bin(int(resize(a, CONFIG).phash, 16) ^ int(resize(b, CONFIG).phash, 16)).count("1")

    one, other = blobs(), blobs()
    assert distance(encode(one), encode(one, "JPEG", quality=60)) <= 4
    assert distance(encode(one), encode(other)) >= 16


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises what its body does not hold."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body


def test_each_bad_image_has_its_reason() -> None:
    whole = encode(quarters(), "JPEG")
    assert reason(b"") == "not_an_image"
    assert reason(b"<html>no</html>") == "not_an_image"
    assert reason(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n") == "not_an_image"
    assert reason(whole[: len(whole) // 2]) == "truncated"
    assert reason(encode(quarters())[:300]) == "truncated"
    assert reason(bomb(20_000, 20_000)) == "too_many_pixels"
    assert reason(bomb(3000, 2000)) == "too_many_pixels"
    assert reason(bomb(500_000, 500_000)) == "too_many_pixels"
    assert reason(encode(quarters(31, 60))) == "too_small"
    assert reason(encode(quarters(100, 301))) == "too_elongated"
    assert reason(encode(Image.new("F", (64, 64), 0.5), "TIFF")) == "undecodable"


def test_damage_at_any_place_is_an_image_or_a_reason() -> None:
    rng = np.random.default_rng(1)
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"):
        data = np.frombuffer(encode(quarters(80, 80), kind), np.uint8)
        for _ in range(40):
            damaged = data.copy()
            damaged[rng.integers(0, len(data), 8)] = rng.integers(0, 256, 8)
            with contextlib.suppress(Failure):
                assert resize(damaged.tobytes(), CONFIG).width == 64


def test_the_perceptual_hash_is_that_of_imagehash_but_for_a_bit_or_two() -> None:
    imagehash = pytest.importorskip("imagehash")
    rng = np.random.default_rng(5)
    for _ in range(20):
        image = Image.fromarray(rng.integers(0, 255, (9, 9, 3), np.uint8)).resize((256, 256))
        theirs = int(str(imagehash.phash(image)), 16)
        assert (theirs ^ int(perceptual_hash(image), 16)).bit_count() <= 2


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(330, 200), (200, 330), (50, 40), (1400, 900)])
def test_every_mode_gives_the_size_and_the_pixels_that_img2dataset_gives(
    monkeypatch: pytest.MonkeyPatch, mode: str, size: tuple[int, int]
) -> None:
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")
    from img2dataset.resizer import Resizer

    rng = np.random.default_rng(6)
    image = Image.fromarray(rng.integers(0, 255, (6, 8, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    data = encode(image, "JPEG", quality=95)
    theirs = Resizer(64, mode, False, encode_format="png", encode_quality=1)(io.BytesIO(data))[0]
    expected = np.asarray(Image.open(io.BytesIO(theirs)).convert("RGB")).astype(int)
    ours = resized(data, ResizeConfig(mode=mode, image_size=64, min_size=8)).astype(int)
    assert ours.shape == expected.shape
    assert np.abs(ours - expected).max() <= (12 if min(size) >= 160 else 0)


def test_a_jpeg_of_too_many_scans_is_refused_unseen() -> None:
    data = encode(quarters(), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    assert resize(data, CONFIG).width == 64
    bomb_of_scans = data[:last] + data[last:-2] * 1300 + data[-2:]
    assert reason(bomb_of_scans) == "too_many_scans"
