"""The pool of square crops that the recipes train on."""

import numpy as np
import torch

from examples.photographs.subjects import SUBJECTS
from examples.zoo.crops import CropPool, square


def test_square_keeps_the_centre_and_averages_areas():
    pixels = np.zeros((4, 12, 3), np.uint8)
    pixels[:, 4:6], pixels[:, 6:8] = 100, 200  # the middle 4 columns; the rest is cut away
    assert square(pixels, 2)[..., 0].tolist() == [[100, 200], [100, 200]]
    checker = np.zeros((8, 8, 3), np.uint8)
    checker[::2, ::2] = checker[1::2, 1::2] = 200
    assert (square(checker, 4) == 100).all()


def test_a_pool_has_each_subject_in_turn_and_depends_on_its_arguments_alone():
    pool, again, other = (CropPool.draw("train", 2, seed, size=16) for seed in (3, 3, 4))
    assert pool.labels.tolist() == [*range(len(SUBJECTS))] * 2
    assert torch.equal(pool.pixels, again.pixels)
    assert not torch.equal(pool.pixels, other.pixels)
    assert not torch.equal(pool.pixels, CropPool.draw("val", 2, 3, size=16).pixels)


def test_images_run_from_minus_one_to_one():
    pool = CropPool(
        torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 2, 2), torch.zeros(2)
    )
    assert pool.images(slice(None)).amin((1, 2, 3)).tolist() == [-1, 1]
