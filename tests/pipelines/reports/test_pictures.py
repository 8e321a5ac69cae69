import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.reports.pictures import GAP, Row, curves, dots, grid, stack
from reptok.pipeline import to_pictures


def tiles(*colours):
    return [Image.new("RGB", (8, 8), colour) for colour in colours]


def test_tensors_become_clamped_pictures():
    images = torch.stack([torch.full((3, 4, 4), value) for value in (-3.0, 0.0, 1.0)])
    assert [picture.getpixel((0, 0))[0] for picture in to_pictures(images)] == [0, 128, 255]


def test_a_grid_holds_its_images_in_order_on_a_transparent_ground():
    picture = grid([Row(images=tiles("red", "lime")), Row(images=tiles("blue", "white"))], tile=20)
    assert picture.size == (40 + GAP, 40 + GAP)
    centre = [picture.getpixel((x, y))[:3] for y in (10, 30 + GAP) for x in (10, 30 + GAP)]
    assert centre == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    assert picture.getpixel((20 + GAP // 2, 10))[3] == 0


def test_titles_and_labels_are_drawn_outside_the_tiles():
    plain = grid([Row(images=tiles("red", "lime"))], tile=60)
    titled = grid([Row(images=tiles("red", "lime"), label="row")], [("a title", 1), ("b", 1)], tile=60)
    left, top = titled.width - plain.width, titled.height - plain.height
    assert left > 0 and top > 0
    assert np.asarray(titled)[:top, :, 3].any() and np.asarray(titled)[:, : left - GAP, 3].any()
    assert titled.getpixel((left + 30, top + 30))[:3] == (255, 0, 0)


def test_what_captions_are_written_with_can_be_drawn():
    """A font draws one and the same box for every sign that it lacks."""
    drawn = [
        grid([Row(images=tiles("red"), label=sign)], tile=30, label_width=60).crop((0, 0, 42, 30)).tobytes()
        for sign in "–—’“×éöжα\uffff"
    ]
    assert len(set(drawn)) == len(drawn)


def test_long_labels_are_cut_to_their_room():
    row = Row(images=tiles("red"), label="unbreakable" * 30)
    assert grid([row], tile=60, label_width=90).width == 150


def test_ragged_rows_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        grid([Row(images=tiles("red")), Row(images=tiles("red", "lime"))])


def test_a_stack_is_as_tall_as_its_parts():
    assert stack([Image.new("RGBA", (5, 10)), Image.new("RGBA", (9, 20))], gap=3).size == (9, 33)


def test_charts_have_ink_and_bear_missing_values():
    chart = dots(["a", "b"], {"floor": [1.0, 2.0], "model": [3.0, float("nan")]}, "dB")
    lines = curves({"loss": ([0, 1, 2], [3.0, 2.0, 1.0])}, "step", "loss")
    for picture in (chart, lines):
        alpha = np.asarray(picture)[..., 3]
        assert 0.001 < (alpha > 0).mean() < 0.5
