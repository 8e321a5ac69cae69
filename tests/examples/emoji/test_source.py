"""The source in the configuration."""

import pytest

from examples.emoji.pictures import PICTURES
from examples.emoji.samples import EmojiConfig
from examples.emoji.stage import EmojiPictures
from pipelines.configuration.compose import load_config
from pipelines.configuration.schema import Config
from pipelines.workflows import build


def test_the_experiment_is_composed_and_what_emoji_cannot_give_is_refused():
    config = load_config(Config, ["experiment=emoji", "data.emoji.count=7"])
    stages = {stage.name: stage for stage in build(config)}
    assert set(stages) == {
        "emoji_pictures", "import_images", "encode_latents", "train_tokenizer", "encode_tokens",
        "train_generator", "evaluate_tokenizer", "evaluate_generator", "publish",
    }  # fmt: skip
    chosen = stages["emoji_pictures"].config.emoji
    assert (chosen.count, chosen.image_size, chosen.view, chosen.font) == (7, 64, "both", "")
    with pytest.raises(ValueError, match="emoji have captions and no classes"):
        load_config(Config, ["experiment=emoji", "generator=mixer_class_tiny"])


@pytest.mark.parametrize("experiment", ["emoji", "zoo_emoji"])
def test_a_picture_that_is_left_of_another_is_not_mirrored_under_its_caption(experiment):
    train = load_config(Config, [f"experiment={experiment}"]).train
    assert train.generator.flip is False and train.tokenizer.time_loc == -0.8


def test_another_font_is_another_artifact(tmp_path):
    (tmp_path / "same.bin").write_bytes(PICTURES.read_bytes())
    (tmp_path / "other.bin").write_bytes(PICTURES.read_bytes() + b"!")
    digests = [
        EmojiPictures(EmojiConfig(font=font)).config.drawn_from
        for font in ("", str(tmp_path / "same.bin"), str(tmp_path / "other.bin"))
    ]
    assert digests[0] == digests[1] != digests[2]
    with pytest.raises(FileNotFoundError, match=r"data\.emoji\.font"):
        EmojiPictures(EmojiConfig(font=str(tmp_path / "none.ttf")))
