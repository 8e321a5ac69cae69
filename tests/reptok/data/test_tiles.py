"""Tiles: a cheap decode must give nearly the pixels of the careful one."""

import io

import numpy as np
import pytest
from PIL import Image
from skimage import data

from reptok.data.images import decode_image, encode_jpeg
from reptok.data.tiles import decode_tile, resize_tile, stack_tiles


def psnr(a, b):
    return 10 * np.log10(255**2 / (np.square(a.astype(float) - b.astype(float)).mean() + 1e-6))


@pytest.mark.parametrize("side", [64, 100, 150, 255])
def test_a_scaled_jpeg_is_nearly_the_whole_one_resized(side):
    jpg = encode_jpeg(data.astronaut())
    tile = decode_tile(jpg, side)
    assert tile.shape == (side, side, 3) and tile.dtype == np.uint8
    assert psnr(tile, resize_tile(decode_image(jpg), side)) > 35


def test_small_images_are_enlarged_as_pil_does():
    image = data.astronaut()[:100, :80]
    theirs = np.asarray(Image.fromarray(image).resize((128, 128), Image.Resampling.BICUBIC))
    assert np.abs(resize_tile(image, 128).astype(int) - theirs).max() <= 1


def test_other_formats_orientations_and_modes_take_the_careful_way():
    image = data.astronaut()[:160, :200]
    whole = resize_tile(image, 64)
    for mode, format in (("RGB", "PNG"), ("RGBA", "PNG"), ("CMYK", "JPEG"), ("L", "JPEG")):
        file = io.BytesIO()
        Image.fromarray(image).convert(mode).save(file, format, quality=98)
        expected = resize_tile(np.asarray(Image.fromarray(image).convert("L").convert("RGB")), 64)
        assert psnr(decode_tile(file.getvalue(), 64), expected if mode == "L" else whole) > 32
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(image).transpose(Image.Transpose.ROTATE_90).save(file, "JPEG", quality=98, exif=exif)
    assert psnr(decode_tile(file.getvalue(), 64), whole) > 32


def test_damaged_metadata_do_no_harm():
    image = Image.fromarray(data.astronaut())
    for exif in (b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\0\xff", b"Exif\0\0II*\0\xff\xff\xff\x7f"):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=95, exif=exif)
        assert psnr(decode_tile(file.getvalue(), 100), decode_tile(encode_jpeg(data.astronaut()), 100)) > 35


def test_what_is_no_image_is_refused():
    jpg = encode_jpeg(data.astronaut())
    for damaged in (b"", b"<html>", jpg[:1000], jpg[: len(jpg) // 2]):
        with pytest.raises(ValueError, match="cannot decode image"):
            decode_tile(damaged, 64)
    with pytest.raises(ValueError, match="more than 100000 pixels"):
        decode_tile(jpg, 64, max_pixels=100_000)


def test_tiles_stack_without_a_copy_of_the_layout():
    tiles = [np.full((4, 4, 3), number, np.uint8) for number in range(3)]
    stacked = stack_tiles(tiles)
    assert stacked.shape == (3, 3, 4, 4) and stacked[2].unique().tolist() == [2]
