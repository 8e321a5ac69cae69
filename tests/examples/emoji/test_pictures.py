"""The committed pictures: the font's own, of known size, named, and under their licences."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from examples.emoji import pictures
from examples.emoji.names import phrase, spoken
from examples.emoji.pictures import PICTURES, VERSION, Emoji, load

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"


@pytest.fixture
def font():
    """The font of the committed file."""
    if not Path(FONT).is_file():
        pytest.skip(f"there is no {FONT} (Debian: fonts-noto-color-emoji)")
    made_from = pq.read_schema(PICTURES).metadata[VERSION].decode()
    if pictures.version_of(FONT) != made_from:
        pytest.skip(f"{FONT} is not the {made_from} that the file was made from")
    return FONT


def test_the_font_gives_the_same_pictures_as_the_file(font):
    ours, drawn = load(), load(font)
    assert [one.text for one in ours] == [one.text for one in drawn]
    assert [one.name for one in ours if one.drawn != drawn[ours.index(one)].drawn] == []
    assert ours[700].picture.tobytes() == drawn[700].picture.tobytes()


@pytest.mark.slow
def test_the_file_holds_every_emoji_that_the_font_draws_by_its_name(font, tmp_path):
    pytest.importorskip("emoji", reason="names are read by the package emoji, of the dev extra")
    found = pictures.named(font)
    assert found == load()
    pictures.save(found, font, tmp_path / "again.parquet")
    assert pq.read_table(tmp_path / "again.parquet").equals(pq.read_table(PICTURES), check_metadata=True)


def test_the_file_is_small_and_its_emoji_are_all_different():
    emoji = load()
    assert PICTURES.stat().st_size <= 5_000_000
    assert 1500 < len(emoji) == len({one.text for one in emoji})
    assert len({one.name for one in emoji}) == len({one.drawn for one in emoji}) == len(emoji)
    assert [one.text for one in emoji] == sorted(one.text for one in emoji)


def test_a_picture_shows_what_its_name_says():
    named = {one.name: np.asarray(one.picture) for one in load()}
    for name, colour in (("red circle", 0), ("green circle", 1), ("blue circle", 2)):
        shown = named[name][named[name][..., 3] == 255][:, :3]
        assert named[name].shape == (136, 136, 4) and shown.mean(0).argmax() == colour
    small, large = (named[f"black {size} square"][..., 3] > 127 for size in ("small", "large"))
    assert 4 * small.sum() < large.sum()  # sizes are the font's own


def test_a_font_that_is_missing_or_has_no_such_pictures_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="fonts-noto-color-emoji"):
        load(str(tmp_path / "none.ttf"))
    (tmp_path / "no.ttf").write_bytes(b"no font")
    with pytest.raises(ValueError, match=r"no\.ttf is no font"):
        load(str(tmp_path / "no.ttf"))


def test_one_emoji_in_ten_is_held_out_with_those_that_differ_by_who_does_it():
    emoji = load()
    assert 0.08 < np.mean([one.held_out for one in emoji]) < 0.12
    by_name = {one.name: one for one in emoji}
    acts = [name.removeprefix("person ") for name in by_name if name.startswith("person ")]
    together = [act for act in acts if {f"man {act}", f"woman {act}"} <= set(by_name)]
    assert len(together) > 20
    for act in together:
        assert len({by_name[f"{who} {act}"].held_out for who in ("person", "man", "woman")}) == 1
    for text, held_out in (("\U0001f34e", False), ("\U0001f98a", by_name["fox"].held_out)):
        assert Emoji(text, "whatever", b"").held_out is held_out  # by the code points alone


@pytest.mark.parametrize(
    "name, words, expected",
    [
        ("red apple", (), "a red apple"),
        ("elephant", (), "an elephant"),
        ("red apple", ("upside-down",), "an upside-down red apple"),
        ("grapes", ("small",), "small grapes"),
        ("unicorn", (), "a unicorn"),
        ("umbrella", (), "an umbrella"),
        ("hourglass done", (), "an hourglass done"),
        ("one o’clock", (), "a one o’clock"),
        ("SOS button", (), "an SOS button"),
        ("FREE button", (), "a FREE button"),
        ("wine glass", (), "a wine glass"),
        ("octopus", (), "an octopus"),
        ("face with tears of joy", (), "a face with tears of joy"),
        ("men holding hands", (), "men holding hands"),
        ("bread", ("large",), "large bread"),
        ("milky way", (), "the milky way"),
    ],
)
def test_captions_speak_of_an_emoji_with_the_right_article(name, words, expected):
    assert name in {one.name for one in load()}
    assert phrase(name, *words) == expected


def test_short_names_become_words():
    assert spoken(":person_red_hair:") == "person with red hair"
    assert spoken(":O_button_(blood_type):") == "O button"


def test_the_licences_stand_beside_the_pictures():
    notice, licence = (PICTURES.with_name(name).read_text() for name in ("NOTICE", "OFL.txt"))
    assert "SIL Open Font License, Version 1.1" in notice and "Apache License, Version 2.0" in notice
    assert licence.startswith("Copyright 2022 Google Inc.")
    for words in ("SIL OPEN FONT LICENSE Version 1.1", "PERMISSION & CONDITIONS", "DISCLAIMER"):
        assert words in licence
