"""Composed pictures: what captions say is what pixels show, and nothing held out is trained on."""

import numpy as np
import pytest

from examples.emoji import samples as emoji_samples
from examples.emoji.captions import described
from examples.emoji.compose import PLACES
from examples.emoji.names import article
from examples.emoji.pictures import load
from examples.emoji.samples import EmojiConfig, scenes
from examples.emoji.scene import GROUNDS, Item, Scene, draw, is_seen, stands_out

CONFIG = EmojiConfig(view="composed", count=400, val_count=200, seed=5)


@pytest.fixture(scope="module")
def drawn():
    return list(emoji_samples.samples(CONFIG, "train"))


@pytest.fixture(scope="module")
def by_name():
    return {one.name: one for one in load()}


def shown(sample):
    """Where something differs from the ground, (size, size) of booleans."""
    return np.abs(sample.image.astype(int) - GROUNDS[sample.scene.ground]).sum(-1) > 24


def test_the_ground_has_the_colour_of_its_word(drawn):
    assert {sample.scene.ground for sample in drawn} == set(GROUNDS)
    for sample in drawn:
        assert f"{article(sample.scene.ground)} ground" in sample.scene.caption
        background = sample.image.reshape(-1, 3)[~shown(sample).ravel()]
        assert len(background) > 0.1 * shown(sample).size
        assert np.abs(np.median(background, axis=0) - GROUNDS[sample.scene.ground]).max() == 0


def test_a_single_emoji_is_where_the_caption_says(drawn):
    placed = [sample for sample in drawn if sample.scene.place]
    assert {sample.scene.place for sample in placed} == set(PLACES)
    for sample in placed:
        assert sample.scene.place in sample.scene.caption
        rows, columns = np.nonzero(shown(sample))
        for centre, wanted in zip(
            (columns.mean() / 64, rows.mean() / 64), PLACES[sample.scene.place], strict=True
        ):
            assert abs(centre - 0.5) < 0.12 if wanted == 0.5 else (centre < 0.4) == (wanted == 0.0)
    for sample in drawn:
        if not sample.scene.place:
            assert not any(place in sample.scene.caption for place in PLACES)


def test_two_emoji_stand_as_the_caption_says(drawn):
    pairs = [sample for sample in drawn if sample.scene.relation]
    assert 150 < len(pairs) < 250
    for sample in pairs:
        first, second = sample.scene.items
        axis = 1 if sample.scene.relation == "left of" else 0
        alone = [draw(Scene((item,), sample.scene.ground), 64) for item in (first, second)]
        places = [
            np.nonzero(np.abs(image.astype(int) - GROUNDS[sample.scene.ground]).sum(-1) > 24)[axis]
            for image in alone
        ]
        assert places[0].mean() + 8 < places[1].mean()
        assert np.array_equal(
            np.where(alone[0] == GROUNDS[sample.scene.ground], alone[1], alone[0]), sample.image
        )
        a, b = (described(item) for item in (first, second))
        if first.emoji == second.emoji:
            side_by_side = "side by side" if sample.scene.relation == "left of" else "one above the other"
            assert f"{a} twice, {side_by_side}" in sample.scene.caption
            continue
        ways = {
            "left of": (
                f"{a} left of {b}",
                f"{a} to the left of {b}",
                f"{b} right of {a}",
                f"{b} to the right of {a}",
            ),
            "above": (f"{a} above {b}", f"{a} over {b}", f"{b} below {a}", f"{b} under {a}"),
        }
        assert any(words in sample.scene.caption for words in ways[sample.scene.relation])


def test_words_of_size_and_pose_are_what_is_drawn(drawn):
    items = [(sample, item) for sample in drawn for item in sample.scene.items]
    small, plain, large = ([i.side for _, i in items if i.size == size] for size in ("small", "", "large"))
    assert max(small) <= 0.36 <= min(plain) + 0.001 and min(large) >= 0.48
    for word, is_so in (
        ("upside-down", lambda item: item.turned == 180),
        ("mirrored", lambda item: item.mirrored),
        ("tilted", lambda item: abs(item.turned) == 35),
    ):
        said = [sample for sample in drawn if any(is_so(item) for item in sample.scene.items)]
        assert len(said) >= 10
        for sample in said:
            assert word in sample.scene.caption


def test_what_nobody_would_see_is_neither_done_nor_said(by_name):
    assert not is_seen(by_name["red circle"], 180, False)
    assert not is_seen(by_name["red heart"], 0, True)
    assert is_seen(by_name["red heart"], 180, False)
    assert is_seen(by_name["guitar"], 0, True)
    assert not stands_out(by_name["red heart"], "red") and stands_out(by_name["red heart"], "blue")
    assert not stands_out(by_name["white circle"], "white")


def test_drawing_moves_turns_and_mirrors(by_name):
    whole = draw(Scene((Item(by_name["guitar"]),)), 64)
    assert np.array_equal(draw(Scene((Item(by_name["guitar"], mirrored=True),)), 64), whole[:, ::-1])
    assert np.array_equal(draw(Scene((Item(by_name["guitar"], turned=180),)), 64), whole[::-1, ::-1])
    half = draw(Scene((Item(by_name["guitar"], x=0.25, y=0.75, side=0.5),), "blue"), 64)
    assert (half[:32] == GROUNDS["blue"]).all() and (half[:, 32:] == GROUNDS["blue"]).all()


def test_the_same_seed_gives_the_same_bytes_and_a_longer_run_begins_alike(drawn):
    again = emoji_samples.samples(EmojiConfig(view="composed", count=20, seed=5), "train")
    for sample, before in zip(again, drawn, strict=False):
        assert sample.scene == before.scene and np.array_equal(sample.image, before.image)
    other = next(scenes(EmojiConfig(view="composed", seed=6), "train"))
    assert other != drawn[0].scene


def test_training_never_sees_what_is_held_out():
    config = EmojiConfig(view="both", count=1500, val_count=300)
    train, held = (list(scenes(config, split)) for split in ("train", "val"))
    known = {item.emoji.text for scene in train for item in scene.items}
    grounds = {(i.emoji.text, s.ground) for s in train if s.view == "composed" for i in s.items}
    pairs = {frozenset(i.emoji.text for i in s.items) for s in train if s.relation}
    assert len(train) + len(held) == len(load()) + 1800
    reasons = [scene.held_out for scene in held if scene.view == "composed"]
    assert reasons.count("emoji") == reasons.count("combination") == 150
    for scene in held:
        texts = [item.emoji.text for item in scene.items]
        if scene.held_out == "emoji":
            assert not set(texts) <= known
        else:
            assert all(not item.emoji.held_out for item in scene.items)
            new = [text for text in texts if (text, scene.ground) not in grounds]
            assert new or frozenset(texts) not in pairs
    assert {scene.held_out for scene in train} == {""}


def test_plain_pictures_are_on_white_and_called_by_their_names(by_name):
    train, held = (
        list(emoji_samples.samples(EmojiConfig(view="plain", image_size=32), split))
        for split in ("train", "val")
    )
    assert {sample.scene.caption for sample in (*train, *held)} == set(by_name)
    assert all(sample.scene.items[0].emoji.held_out for sample in held)
    assert not any(sample.scene.items[0].emoji.held_out for sample in train)
    corners = np.stack([sample.image[[0, 0, -1, -1], [0, -1, 0, -1]] for sample in train])
    assert (corners == 255).mean() > 0.95


def test_a_table_tells_what_each_picture_shows():
    table = emoji_samples.table(EmojiConfig(count=5, val_count=4, view="composed"), "val")
    rows = table.to_pylist()
    assert sorted(row["held_out"] for row in rows) == ["combination"] * 2 + ["emoji"] * 2
    expected = {s.caption: s for s in scenes(EmojiConfig(count=5, val_count=4, view="composed"), "val")}
    assert {row["caption"] for row in rows} == set(expected)
    for row in rows:
        scene = expected[row["caption"]]
        assert row["ground"] == scene.ground and row["held_out"] == scene.held_out
        assert row["names"] == [item.emoji.name for item in scene.items]
        assert row["image"][:4] == b"\x89PNG"


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="plain, composed or both"):
        EmojiConfig(view="sideways")
    with pytest.raises(ValueError, match="at least 1"):
        EmojiConfig(count=0)
    with pytest.raises(ValueError, match="train, val"):
        next(scenes(CONFIG, "test"))
