"""The demo's corpus: named subjects, and a split without a shared pixel."""

import numpy as np
import pytest

from examples.photographs import photographs
from examples.photographs.photographs import BLOCK, LARGEST_SIDE, SMALLEST_SIDE, VALIDATION_SIDE
from examples.photographs.subjects import CLASS_NAMES, SUBJECTS


def test_there_are_16_to_20_subjects_with_several_texts_that_name_them():
    assert 16 <= len(SUBJECTS) <= 20
    assert len(set(CLASS_NAMES)) == len(SUBJECTS)
    for subject in SUBJECTS:
        assert 5 <= len(set(subject.alt_texts)) <= 8
        noun = subject.name.rstrip("s").removesuffix("ie")
        others = [other.name for other in SUBJECTS if other is not subject]
        for text in subject.alt_texts:
            assert noun in text.lower().replace("galaxies", "galax") or subject.name in text.lower()
            assert not any(f" {other} " in f" {text.lower()} " for other in others)


@pytest.mark.parametrize("subject", SUBJECTS, ids=CLASS_NAMES)
def test_no_validation_crop_shares_a_pixel_with_a_training_crop(subject):
    height, width, _ = photographs.photograph(subject).shape
    reserved = np.zeros((height, width), bool)
    for row, column in subject.validation:
        square = reserved[row * BLOCK : (row + 2) * BLOCK, column * BLOCK : (column + 2) * BLOCK]
        assert square.shape == (VALIDATION_SIDE, VALIDATION_SIDE)
        assert not square.any()
        square[:] = True
    assert 0.14 < reserved.mean() < 0.23

    seen = {"train": np.zeros_like(reserved), "val": np.zeros_like(reserved)}
    for split, mask in seen.items():
        rng = np.random.default_rng(0)
        for _ in range(400):
            left, top, right, bottom = photographs.crop_box(subject, split, rng)
            assert left >= 0 and top >= 0 and right <= width and bottom <= height
            assert min(right - left, bottom - top) >= SMALLEST_SIDE
            assert max(right - left, bottom - top) <= (LARGEST_SIDE if split == "train" else VALIDATION_SIDE)
            mask[top:bottom, left:right] = True
    assert not (seen["train"] & reserved).any()
    assert not (seen["val"] & ~reserved).any()
    assert seen["val"].sum() > 0.95 * reserved.sum()
    assert seen["train"].sum() > 0.6 * (~reserved).sum()


def test_crops_are_seeded_and_grey_photographs_have_three_equal_channels():
    for subject in SUBJECTS[:4]:
        first, again, other = (
            photographs.sample_crop(subject, "train", np.random.default_rng(s)) for s in (5, 5, 6)
        )
        assert first.dtype == np.uint8 and first.shape[2] == 3
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)
    moon = photographs.photograph(next(subject for subject in SUBJECTS if subject.name == "moon"))
    assert np.array_equal(moon[..., 0], moon[..., 2])


def test_writing_is_never_mirrored():
    page = next(subject for subject in SUBJECTS if subject.name == "page")
    whole = photographs.photograph(page)
    for seed in range(20):
        left, top, right, bottom = photographs.crop_box(page, "train", np.random.default_rng(seed))
        crop = photographs.sample_crop(page, "train", np.random.default_rng(seed))
        assert np.array_equal(crop, whole[top:bottom, left:right])


def test_a_missing_package_is_named():
    lost = SUBJECTS[0].__class__(**{**vars(SUBJECTS[0]), "package": "no_such_package"})
    with pytest.raises(FileNotFoundError, match="no_such_package"):
        photographs.photograph_path(lost)
