"""ADM's crop, against numbers from its published algorithm, written down here in its own words."""

import math

import numpy as np
import pytest
from PIL import Image

from reptok.data.images import CROPS


def published(picture, size):
    """guided-diffusion's image_datasets.py: box filters by halves, bicubic, centre."""
    while min(*picture.size) >= 2 * size:
        picture = picture.resize(tuple(x // 2 for x in picture.size), resample=Image.BOX)
    scale = size / min(*picture.size)
    picture = picture.resize(tuple(round(x * scale) for x in picture.size), resample=Image.BICUBIC)
    pixels = np.array(picture)
    top, left = (pixels.shape[0] - size) // 2, (pixels.shape[1] - size) // 2
    return pixels[top : top + size, left : left + size]


@pytest.mark.parametrize("shape", [(500, 375), (375, 501), (64, 64), (63, 200), (1024, 640), (130, 128)])
def test_it_is_adms_to_the_byte(shape):
    picture = np.random.default_rng(shape[0]).integers(0, 256, (*shape, 3), dtype=np.uint8)
    np.testing.assert_array_equal(CROPS["adm"](picture, 64), published(Image.fromarray(picture), 64))


def test_a_picture_of_twice_the_side_is_averaged_by_fours():
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[::2, ::2] = 200
    assert (CROPS["adm"](picture, 4) == 50).all()


def test_an_odd_remainder_lies_below_and_right():
    picture = np.arange(7, dtype=np.uint8)[None, :, None].repeat(4, 0).repeat(3, 2)
    assert CROPS["adm"](picture, 4)[0, :, 0].tolist() == [1, 2, 3, 4]


def test_the_two_crops_differ_and_a_square_of_the_side_stays():
    x = np.arange(100)
    wave = (127 * (1 + np.sin(x[:, None] / 7) * np.cos(x[None] / math.pi))).astype(np.uint8)
    picture = wave[..., None].repeat(3, 2)
    assert (CROPS["adm"](picture, 32) != CROPS["centre"](picture, 32)).any()
    for crop in CROPS.values():
        np.testing.assert_array_equal(crop(picture, 100), picture)
