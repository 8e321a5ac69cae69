"""`plan` says which share of a folder's captions the text encoder does not know."""

import pytest
from PIL import Image

from pipelines import plan

ON_A_FOLDER = ["data=folder"]


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(40):
        caption = ["a cat", "a close-up of a cat", "an aardvark"][number % 3]
        Image.new("RGB", (64, 64), (number, 0, 0)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(caption)
    return folder


def said(capsys, pictures, *overrides):
    command = [
        *ON_A_FOLDER,
        f"data.folder={pictures}",
        f"root={pictures.parent}/runs",
        *overrides,
    ]
    assert plan.main(command) == 0
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("captions: ")]


def test_the_share_of_unknown_words_is_said_and_what_to_do(pictures, capsys):
    (line,) = said(capsys, pictures)
    assert line.startswith(
        "captions: 10.9 % of the captions' words are unknown to the text encoder (aardvark"
    )
    assert "choose a text_encoder that knows them" in line


def test_nothing_is_said_of_labels(pictures, capsys):
    for picture in sorted(pictures.glob("*")):
        place = pictures / ("even" if int(picture.stem) % 2 == 0 else "odd")
        place.mkdir(exist_ok=True)
        picture.rename(place / picture.name)
    assert said(capsys, pictures, "generator=mixer_class_tiny") == []
