"""What is read from a picture is what it shows, and not something else."""

import numpy as np
import pytest

from examples.emoji.compose import composed, plain
from examples.emoji.judge import Album, Seen, look, nearest, place_of, small
from examples.emoji.measure import decibels, drawn, judged, share
from examples.emoji.pictures import load
from examples.emoji.scene import GROUNDS


def painted(ground, *boxes, size=48):
    """A picture with black or white squares: (left, top, side) in pixels."""
    picture = np.empty((size, size, 3), np.uint8)
    picture[:] = GROUNDS[ground]
    for left, top, side in boxes:
        picture[top : top + side, left : left + side] = 255 if ground == "black" else 0
    return picture


@pytest.mark.parametrize("ground", [name for name in GROUNDS])
def test_a_ground_is_named_though_a_thing_stands_on_the_edge(ground):
    assert look(painted(ground, (0, 0, 20))).ground == ground


def test_one_thing_two_things_and_none():
    assert look(painted("blue")).count == 0
    one = look(painted("blue", (30, 3, 12)))
    assert (one.count, one.relation, place_of(one)) == (1, "", (2, 0))
    beside = look(painted("red", (4, 18, 14), (30, 16, 14)))
    assert (beside.count, beside.relation) == (2, "left of")
    upright = look(painted("red", (18, 4, 14), (16, 30, 14)))
    assert (upright.count, upright.relation) == (2, "above")


def test_place_is_that_of_the_middle():
    seen = look(painted("green", (6, 20, 6)))
    assert (seen.x, seen.y) == (9 / 48, 23 / 48)
    assert place_of(Seen("white", "", 1.0, 0.5)) == (2, 1)


def test_drawn_scenes_are_read_as_they_were_asked_for_and_shuffled_ones_are_not():
    scenes = list(composed(load(), 150, 11, "train"))
    pictures = drawn(scenes, 64)
    right, wrong = judged(scenes, pictures, "a"), judged(scenes, np.roll(pictures, 1, axis=0), "a")
    assert right["a/ground"] == 100
    assert min(right["a/count"], right["a/relation"], right["a/place"]) > 93
    assert wrong["a/ground"] < 25 and wrong["a/relation"] < 50 and wrong["a/place"] < 30
    assert right["a/ground_n"] == 150 and right["a/relation_n"] < 150


def test_every_emoji_is_its_own_nearest_and_survives_a_blur():
    emoji = load()[::20]
    album = Album.of(emoji, 64)
    pictures = drawn(list(plain(emoji)), 64)
    assert (album.nearest(pictures) == np.arange(len(emoji))).all()
    blurred = (pictures.astype(int) + np.roll(pictures, 1, axis=1) + np.roll(pictures, 1, axis=2)) // 3
    assert (album.nearest(blurred.astype(np.uint8)) == np.arange(len(emoji))).mean() > 0.95


def test_small_pictures_are_means_and_the_nearest_is_by_distance():
    picture = np.zeros((1, 32, 32, 3), np.uint8)
    picture[0, :2, :2] = [[[4, 0, 0], [8, 0, 0]], [[0, 0, 0], [0, 0, 0]]]
    assert small(picture)[0, :3].tolist() == [3, 0, 0] and small(picture)[0, 3:].sum() == 0
    assert nearest(np.array([[1.0, 1.0], [9.0, 0.0]]), np.array([[0.0, 0.0], [10.0, 0.0]])).tolist() == [0, 1]


def test_figures_have_errors_and_numbers():
    assert share([True, True, True, False], "x") == {
        "x": 75.0,
        "x_se": pytest.approx(21.65, abs=0.01),
        "x_n": 4,
    }
    grey = np.full((2, 4, 4, 3), 100, np.uint8)
    other = np.stack([grey[0] + 10, grey[0] + 1])
    found = decibels(grey, other, "p")
    assert found["p"] == pytest.approx((28.131 + 48.131) / 2, abs=1e-3)
    assert found["p_se"] == pytest.approx(10.0, abs=1e-3)
