"""Image files: the centre crop's position, every kind of pixel as RGB, and images that are none."""

import io

import numpy as np
import pytest
from PIL import Image

from reptok.data import images


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def test_centre_crop_keeps_the_middle():
    image = np.zeros((10, 30, 3), np.uint8)
    image[:, 10:20] = 200
    assert (images.centre_crop(image, 10) == 200).all()
    assert (images.centre_crop(image.transpose(1, 0, 2).copy(), 10) == 200).all()


def test_centre_crop_resizes_the_shorter_side():
    gradient = np.tile(np.linspace(0, 255, 64).astype(np.uint8)[:, None, None], (1, 100, 3))
    cropped = images.centre_crop(gradient, 16)
    assert cropped.shape == (16, 16, 3)
    expected = gradient.reshape(16, 4, 100, 3).mean((1, 2))
    assert np.abs(cropped[1:-1, 8].astype(float) - expected[1:-1]).max() <= 1.5


def test_an_image_of_the_right_size_is_not_touched():
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert images.centre_crop(image, 8) is image


def test_grey_palette_and_transparent_images_become_rgb():
    grey = Image.new("L", (3, 2), 77)
    assert (images.decode_image(encoded(grey, "PNG")) == 77).all()
    palette = Image.new("RGB", (3, 2), (10, 20, 30)).convert("P", palette=Image.Palette.ADAPTIVE)
    assert (images.decode_image(encoded(palette, "PNG")) == (10, 20, 30)).all()
    clear = Image.new("RGBA", (3, 2), (10, 20, 30, 0))
    assert (images.decode_image(encoded(clear, "PNG")) == 255).all()


def test_sixteen_bit_grey_is_scaled_and_not_clipped():
    grey = Image.fromarray(np.full((2, 3), 30000, np.uint16))
    assert (images.decode_image(encoded(grey, "PNG")) == 30000 // 257).all()


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10)).save(buffer, "JPEG", exif=exif)
    assert images.decode_image(buffer.getvalue()).shape == (20, 10, 3)


@pytest.mark.parametrize(
    "data", [b"", b"not an image", images.encode_jpeg(np.zeros((64, 64, 3), np.uint8))[:400]]
)
def test_what_is_no_image_is_a_value_error(data):
    with pytest.raises(ValueError, match="cannot decode"):
        images.decode_image(data)


def test_too_many_pixels_are_refused_before_decoding():
    with pytest.raises(ValueError, match="more than 1000 pixels"):
        images.decode_image(encoded(Image.new("RGB", (100, 100)), "PNG"), max_pixels=1000)
