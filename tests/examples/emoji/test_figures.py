"""Pictures for pages: what they show is what they say."""

from random import Random

import numpy as np
from PIL import Image

from examples.emoji import figures
from examples.emoji.pictures import load
from examples.emoji.scene import draw


def test_a_sum_asks_for_the_same_change_of_another_emoji():
    four = figures.sums(load(), Random(3), 6)
    for a, b, c, d in four:
        (first,), (same,), (other,), (again,) = (scene.items for scene in (a, b, c, d))
        assert first.emoji == same.emoji != other.emoji == again.emoji and not other.emoji.held_out
        assert (a.ground, first.x) == (c.ground, other.x) and (b.ground, same.x) == (d.ground, again.x)
        assert not np.array_equal(draw(a, 64), draw(b, 64)) and not np.array_equal(draw(c, 64), draw(d, 64))
    moved = [a.ground == b.ground for a, b, _, _ in four]
    assert moved == [False, True] * 3, "grounds and places in turn"


def test_every_picture_is_written_and_the_same_seed_gives_the_same_ones(model, tmp_path, capsys):
    for folder in ("one", "two"):
        assert figures.main([str(model), f"out={tmp_path / folder}", "seed=2"]) == 0
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert names == {
        f"{n}.webp" for n in ("overview", "names", "tokens", "interpolation", "arithmetic", "guidance")
    }
    for name in names:
        first, second = ((tmp_path / folder / name).read_bytes() for folder in ("one", "two"))
        assert first == second and min(Image.open(tmp_path / "one" / name).size) > 200
    assert figures.main([]) == 2 and "MODEL" in capsys.readouterr().err
