"""Whether what came is what was listed: distances between hashes that are known."""

import io

import numpy as np
import pytest
from PIL import Image

from pipelines.crawl.resize import ResizeConfig, resize
from pipelines.filters.listed_hash import REASON, SCORE, ListedHash

CONFIG = ResizeConfig(image_size=64, min_size=16, max_aspect_ratio=4.0, hash_whole=True)


def judged(listed, found, most=12):
    return ListedHash(max_distance=most).judge({"key": "k", "image_phash": listed, "whole_phash": found})


@pytest.mark.parametrize(
    ("listed", "found", "distance"),
    [
        ("0000000000000000", "0000000000000000", 0),
        ("0000000000000000", "000000000000000f", 4),
        ("ffffffffffffffff", "0000000000000000", 64),
        ("8000000000000001", "1", 1),  # a list may leave zeros out
    ],
)
def test_the_distance_is_the_number_of_bits_that_differ(listed, found, distance):
    assert judged(listed, found).scores == {SCORE: distance}


def test_the_threshold_is_the_largest_distance_that_is_borne():
    assert judged("0", "00000000000000ff", most=8).reason is None
    assert judged("0", "00000000000001ff", most=8).reason == REASON
    assert ListedHash(max_distance=8).thresholds == {SCORE: 8}


@pytest.mark.parametrize(("listed", "found"), [(None, "0" * 16), ("0" * 16, None), ("", "0" * 16)])
def test_what_cannot_be_compared_stays_and_has_no_score(listed, found):
    finding = judged(listed, found)
    assert finding.reason is None and finding.scores == {}


def jpeg(image, **options):
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def photograph(name):
    data = pytest.importorskip("skimage.data")
    return Image.fromarray(getattr(data, name)()).convert("RGB")


def placeholder(size):
    """What stands where a picture was: a grey plane with a frame and a bar."""
    pixels = np.full((size[1], size[0], 3), 230, np.uint8)
    pixels[size[1] // 2 - 8 : size[1] // 2 + 8, size[0] // 4 : -size[0] // 4] = 90
    return Image.fromarray(pixels)


@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea", "rocket"])
def test_a_photograph_is_known_again_after_years_and_its_placeholder_is_not(name):
    """The list's hash is imagehash's, of the whole original; what comes is smaller and compressed again."""
    imagehash = pytest.importorskip("imagehash")
    original = photograph(name).crop((0, 0, 400, 200))  # twice as wide as high: a crop loses half of it
    listed = str(imagehash.phash(original))
    today = jpeg(original.resize((300, 150)), quality=70)
    picture = resize(today, CONFIG)
    same = judged(listed, picture.whole_phash)
    assert same.reason is None and same.scores[SCORE] <= 6
    assert judged(listed, picture.phash).scores[SCORE] > 12  # the crop's hash would not do
    gone = resize(jpeg(placeholder((400, 200))), CONFIG)
    assert judged(listed, gone.whole_phash).reason == REASON


def test_a_download_that_nobody_asked_for_such_hashes_takes_none():
    picture = resize(jpeg(placeholder((64, 64))), ResizeConfig(image_size=64, min_size=16))
    assert picture.whole_phash is None
