"""Image transforms: value ranges and exact inverses."""

import numpy as np
import torch

from reptok.data import transforms
from reptok.data.images import encode_jpeg


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


def test_pixels_are_rounded_as_files_do_or_truncated_as_the_release_does():
    values = torch.tensor([-2.0, -1.0, 0.0, 0.999, 1.0, 2.0]).view(1, 1, 1, 6)
    assert transforms.quantised(values, "truncate").flatten().tolist() == [0, 0, 127, 254, 255, 255]
    assert transforms.quantised(values).flatten().tolist() == [0, 0, 128, 255, 255, 255]


def test_to_uint8_clamps():
    assert transforms.to_uint8(torch.tensor([-7.0, 7.0, 0.0]).view(3, 1, 1)).ravel().tolist() == [0, 255, 128]


def test_flip_mirrors_left_and_right_only():
    images = torch.arange(2 * 3 * 2 * 4).float().view(2, 3, 2, 4)
    assert torch.equal(transforms.flip(images)[..., 0], images[..., 3])
    assert torch.equal(transforms.flip(transforms.flip(images)), images)


def test_load_image_is_decode_crop_and_scale():
    jpeg = encode_jpeg(np.full((12, 20, 3), 128, np.uint8))
    image = transforms.load_image(jpeg, 8)
    assert image.shape == (3, 8, 8)
    assert torch.allclose(image, torch.tensor(128 / 127.5 - 1), atol=1e-2)
