"""Image transforms: value ranges, the centre crop's position, exact inverses, and images that are none."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from reptok.data import transforms


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def test_black_is_minus_one_white_is_one():
    image = np.stack([np.zeros((4, 6, 3), np.uint8), np.full((4, 6, 3), 255, np.uint8)])
    images = transforms.to_float(image)
    assert images.shape == (2, 3, 4, 6)
    assert images.dtype == torch.float32
    assert (images[0] == -1).all()
    assert (images[1] == 1).all()


def test_uint8_survives_the_way_through_float():
    image = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    assert np.array_equal(transforms.to_uint8(transforms.to_float(image)), image)


def test_to_uint8_clamps():
    assert transforms.to_uint8(torch.tensor([-7.0, 7.0, 0.0]).view(3, 1, 1)).ravel().tolist() == [0, 255, 128]


def test_flip_mirrors_left_and_right_only():
    images = torch.arange(2 * 3 * 2 * 4).float().view(2, 3, 2, 4)
    assert torch.equal(transforms.flip(images)[..., 0], images[..., 3])
    assert torch.equal(transforms.flip(transforms.flip(images)), images)


def test_centre_crop_keeps_the_middle():
    image = np.zeros((10, 30, 3), np.uint8)
    image[:, 10:20] = 200
    assert (transforms.centre_crop(image, 10) == 200).all()
    assert (transforms.centre_crop(image.transpose(1, 0, 2).copy(), 10) == 200).all()


def test_centre_crop_resizes_the_shorter_side():
    gradient = np.tile(np.linspace(0, 255, 64).astype(np.uint8)[:, None, None], (1, 100, 3))
    cropped = transforms.centre_crop(gradient, 16)
    assert cropped.shape == (16, 16, 3)
    expected = gradient.reshape(16, 4, 100, 3).mean((1, 2))
    assert np.abs(cropped[1:-1, 8].astype(float) - expected[1:-1]).max() <= 1.5


def test_an_image_of_the_right_size_is_not_touched():
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert transforms.centre_crop(image, 8) is image


def test_grey_palette_and_transparent_images_become_rgb():
    grey = Image.new("L", (3, 2), 77)
    assert (transforms.decode_image(encoded(grey, "PNG")) == 77).all()
    palette = Image.new("RGB", (3, 2), (10, 20, 30)).convert("P", palette=Image.Palette.ADAPTIVE)
    assert (transforms.decode_image(encoded(palette, "PNG")) == (10, 20, 30)).all()
    clear = Image.new("RGBA", (3, 2), (10, 20, 30, 0))
    assert (transforms.decode_image(encoded(clear, "PNG")) == 255).all()


def test_sixteen_bit_grey_is_scaled_and_not_clipped():
    grey = Image.fromarray(np.full((2, 3), 30000, np.uint16))
    assert (transforms.decode_image(encoded(grey, "PNG")) == 30000 // 257).all()


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10)).save(buffer, "JPEG", exif=exif)
    assert transforms.decode_image(buffer.getvalue()).shape == (20, 10, 3)


def test_load_image_is_decode_crop_and_scale():
    jpeg = transforms.encode_jpeg(np.full((12, 20, 3), 128, np.uint8))
    image = transforms.load_image(jpeg, 8)
    assert image.shape == (3, 8, 8)
    assert torch.allclose(image, torch.tensor(128 / 127.5 - 1), atol=1e-2)


@pytest.mark.parametrize(
    "data", [b"", b"not an image", transforms.encode_jpeg(np.zeros((64, 64, 3), np.uint8))[:400]]
)
def test_what_is_no_image_is_a_value_error(data):
    with pytest.raises(ValueError, match="cannot decode"):
        transforms.decode_image(data)


def test_too_many_pixels_are_refused_before_decoding():
    with pytest.raises(ValueError, match="more than 1000 pixels"):
        transforms.decode_image(encoded(Image.new("RGB", (100, 100)), "PNG"), max_pixels=1000)
