"""What follows from other keys is right, and what contradicts is refused at once, naming both keys."""

import os
import resource
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines import plan, run_all
from pipelines.configuration.compose import load_config
from pipelines.configuration.construct import ConfigError
from pipelines.configuration.schema import Config
from pipelines.dag.reference import HOME


@pytest.fixture
def classes(tmp_path):
    """A folder of two classes, four pictures each."""
    for number in range(8):
        subject = tmp_path / "pictures" / ("cat", "dog")[number % 2]
        subject.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(subject / f"{number}.png")
    return tmp_path / "pictures"


def imagenet(classes, *overrides):
    return ["experiment=imagenet256", f"data.folder={classes}", *overrides]


def test_widths_follow_from_the_encoder(classes):
    """A narrow token from a small encoder, all the way to the generator."""
    config = load_config(Config, imagenet(classes, "encoder=dinov2_s14_reg", "decoder=S"))
    assert config.decoder.token_dim == config.generator.token_dim == 384
    assert load_config(Config, imagenet(classes)).generator.token_dim == 768
    several = load_config(Config, imagenet(classes, "encoder.num_tokens=3", "encoder.token=reg"))
    assert several.decoder.num_tokens == several.generator.num_tokens == 3


def test_latents_follow_from_image_and_vae(classes):
    assert load_config(Config, imagenet(classes)).decoder.latent_size == 32
    config = load_config(Config, imagenet(classes, "data.image_size=128"))
    assert config.decoder.latent_size == 16 and config.decoder.latent_channels == 4
    assert config.data.import_images.image_size == config.data.shard.image_size == 128
    assert config.data.download.resize.image_size == 128


def test_one_key_says_who_judges_both_reports(classes):
    config = load_config(
        Config, imagenet(classes, "evaluate.judge={name: folder, path: zoo/encoder, image_size: 64}")
    )
    assert config.evaluate.tokenizer.judge == config.evaluate.generator.judge == config.evaluate.judge
    assert config.evaluate.judge.path == "zoo/encoder"
    assert load_config(Config, imagenet(classes)).evaluate.tokenizer.judge is None
    other = "evaluate.generator.judge={name: folder, path: zoo/english, image_size: 64}"
    words = ["evaluate.judge={name: folder, path: zoo/encoder, image_size: 64}", other]
    with pytest.raises(ConfigError, match=r"evaluate\.generator\.judge=.* contradicts evaluate\.judge"):
        load_config(Config, imagenet(classes, *words))


def test_the_baselines_tokens_are_patches(classes):
    config = load_config(Config, ["experiment=imagenet256_sit", *imagenet(classes)[1:]])
    assert (config.generator.token_dim, config.generator.num_tokens) == (2 * 2 * 4, 16 * 16)
    small = load_config(Config, ["experiment=demo_latents", "decoder.patch_size=4"])
    assert (small.generator.token_dim, small.generator.num_tokens) == (4 * 4 * 4, 2 * 2)


def test_the_texts_width_follows_from_the_language_model():
    assert load_config(Config).generator.text_dim == 128
    for name, width in (("clip_l14", 768), ("gemma_2b", 2048), ("internvl3_1b", 896)):
        assert load_config(Config, [f"text_encoder={name}"]).generator.text_dim == width


def test_classes_are_counted(classes):
    assert load_config(Config, imagenet(classes)).generator.num_classes == 2
    assert load_config(Config, ["experiment=demo_classes"]).generator.num_classes == 18


def test_a_model_of_the_hub_that_nobody_knows_is_described_by_hand():
    own = ["vae.path=nobody/nothing", "decoder.latent_channels=16", "decoder.latent_size=8"]
    assert load_config(Config, own).decoder.latent_channels == 16


def test_a_group_that_the_command_line_chose_is_not_lost(tmp_path, capsys):
    """An experiment that sets a group to null, or puts a part of one in a chosen null's place, gives way."""
    chosen = load_config(Config, ["experiment=demo_classes", "generator=mixer_text_tiny", "text_encoder=zoo"])
    assert chosen.text_encoder.path == "zoo/text_encoder" and chosen.generator.condition == "text"
    assert load_config(Config, ["experiment=t2i_coyo", "estimate=none"]).estimate is None
    assert (
        load_config(Config, ["experiment=t2i_coyo", "captioner=zoo"]).captioner.model.path == "zoo/captioner"
    )
    assert capsys.readouterr().err == ""
    load_config(Config, ["experiment=zoo", "train=demo", "train.generator.steps=9"])
    note = capsys.readouterr().err
    assert "the experiment refines train: " in note and "train.tokenizer.steps" in note
    assert "train.generator.steps" not in note


CONTRADICTIONS = [
    ("decoder.token_dim=768", "decoder.token_dim=768 contradicts encoder.path=zoo/encoder, from which 192"),
    ("generator.token_dim=768", "generator.token_dim=768 contradicts the encoder"),
    ("generator.text_dim=768", "generator.text_dim=768 contradicts text_encoder.path=zoo/text_encoder"),
    ("decoder.latent_size=32", "decoder.latent_size=32 contradicts data.image_size=64 and vae.path=zoo/auto"),
    ("data.shard.image_size=128", "data.shard.image_size=128 contradicts data.image_size"),
    (
        "data.image_size=128",
        "reference_tokenizer=zoo/reptok/tokenizer makes images of 64 px, and data.image",
    ),
    ("data.image_size=60", "data.image_size=60 must be a multiple of 8, which vae.path=zoo/autoencoder asks"),
    ("data.download.resize.mode=keep_ratio", "choose one of center_crop, border"),
    (
        "decoder.width=96",
        "decoder.width=96 is less than the 192 numbers of a token of encoder.path",
    ),
    ("decoder.patch_size=3", "decoder.patch_size=3 does not divide the latent's side 8"),
    (
        "encoder.image_size=60",
        "encoder.image_size=60 must be a multiple of 16, the patch size of enc",
    ),
    (
        "encoder=dinov3_b16 encoder.num_tokens=5 encoder.token=reg decoder=B",
        "encoder.num_tokens=5 from encoder.token=reg are more than encoder.name",
    ),
    ("encoder=mae_b16 encoder.token=reg decoder=B", "encoder.token=reg needs a register, and encoder.name"),
    ("encoder.path=null", "encoder.name=folder needs encoder.path"),
    ("encoder.path=zoo/text_encoder", "does not say num_features"),
    (
        "vae.path=nobody/nothing",
        "vae.path=nobody/nothing, which is not known here: give decoder.",
    ),
    ("generator.heads=5", "generator.dim=192 must be a multiple of generator.heads=5"),
    ("text_encoder=null", "there is no text_encoder 'null'"),
    ("text_encoder.max_length=77", "text_encoder.max_length=77 is more than the 32 tokens"),
    ("generator=mixer_class_tiny generator.num_classes=7", "generator.num_classes=7 contradicts data.photo"),
    ("experiment=t2i_coyo data=folder", "the data name no source: give data.folder=<a folder of pictures"),
    ("experiment=t2i_coyo data=folder data.folder=nowhere", "there is no folder 'nowhere'; set data.folder"),
    (
        "data.folder=pictures",
        "data.folder=pictures and data.select_urls.sources=['artifact:web/coyo.parquet'] are",
    ),
    ("data=folder data.folder=hf://nothing", "a dataset of the hub is hf://datasets/owner/name"),
    (
        "experiment=t2i_coyo generator=mixer_class",
        "generator.num_classes would follow from data.select_urls.sources=['hf://datasets/kakaobrain/coyo-700m",
    ),
    ("data.import_images.folder=x", "data.import_images.folder=x contradicts data.folder"),
    ("data.captions.join.table=[]", "captions.join needs a table"),
]


@pytest.mark.parametrize(("overrides", "message"), CONTRADICTIONS)
def test_a_contradiction_is_refused_by_plan_and_by_run(overrides, message, tmp_path, capsys):
    for program in (plan.main, run_all.main):
        assert program([*overrides.split(), f"root={tmp_path / 'runs'}"]) == 2
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_typed_classes_must_be_those_of_the_folder(classes, tmp_path, capsys):
    assert plan.main(imagenet(classes, "generator.num_classes=3", f"root={tmp_path}/runs")) == 2
    assert "generator.num_classes=3 contradicts data.folder=" in capsys.readouterr().err
    for picture in classes.glob("*/*.png"):
        picture.rename(classes / picture.name)
    for folder in ("cat", "dog"):
        (classes / folder).rmdir()
    assert plan.main(imagenet(classes, f"root={tmp_path}/runs")) == 2
    assert "one folder per class" in capsys.readouterr().err


@pytest.mark.parametrize("overrides", ["decoder.token_dim=768", "experiment=t2i_coyo data=folder", ""])
def test_the_answer_takes_less_than_three_seconds(overrides, tmp_path):
    """Of computing: the clock on the wall depends on what else this machine does."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, str(HOME / "pipelines" / "plan.py"), *overrides.split(), f"root={tmp_path}"]
    subprocess.run(command, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3


@pytest.fixture
def flat(tmp_path):
    """Eight pictures in one folder, without captions and classes."""
    (tmp_path / "flat").mkdir()
    for number in range(8):
        Image.new("RGB", (8, 8)).save(tmp_path / "flat" / f"{number}.png")
    return tmp_path / "flat"


def test_a_source_that_lacks_what_the_condition_asks_for_is_refused_with_what_would_give_it(flat, capsys):
    own = ["data=folder", f"data.folder={flat}", f"root={flat.parent}/runs"]
    assert plan.main(own) == 2
    said = capsys.readouterr().err
    for way in (
        ".txt beside",
        "data.captions.fields",
        "data.captions.join",
        "|zoo)",
        "mixer_class_tiny",
    ):
        assert way in said
    assert "(captioner=coyo|demo|internvl3_1b|zoo)" in said  # none that a stage makes
    assert plan.main([*own, "generator=mixer_class_tiny"]) == 2
    assert "one folder per class" in capsys.readouterr().err
    for fix in ("captioner=zoo", "generator=mixer_unconditional_tiny"):
        assert plan.main([*own, fix]) == 0
    (flat / "3.txt").write_text("a black square")
    assert plan.main(own) == 0
    assert "8 pictures, 1 with a caption" in capsys.readouterr().out


def test_too_few_pictures_are_refused(flat, capsys):
    (flat / "0.png").unlink()
    assert plan.main(["data=folder", f"data.folder={flat}", "captioner=zoo", f"root={flat.parent}/runs"]) == 2
    assert "has 7 pictures, and 8 are the least" in capsys.readouterr().err


def test_a_folder_that_gains_pictures_or_captions_is_another_dataset(flat):
    def listing():
        own = ["data=folder", f"data.folder={flat}", "captioner=zoo"]
        return load_config(Config, own).data.import_images.listing

    before = listing()
    assert before and listing() == before
    Image.new("RGB", (8, 8)).save(flat / "8.png")
    grown = listing()
    (flat / "8.txt").write_text("a cat")
    captioned = listing()
    os.utime(flat / "8.txt", (1, 1))  # as a correction of the same length would leave it
    assert len({before, grown, captioned, listing()}) == 4


def test_plan_says_what_captioner_and_text_encoder_were_trained_on(flat, capsys):
    assert plan.main(["data=folder", f"data.folder={flat}", "captioner=zoo", f"root={flat.parent}/runs"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "the captioner captioner.model.path=zoo/captioner was trained on 1,000 random crops" in said
    assert "the text encoder text_encoder.path=zoo/text_encoder was trained on 108 alt-texts" in said


def test_a_folders_pictures_are_what_an_estimate_reckons_with(classes):
    assert load_config(Config, imagenet(classes)).estimate.rows == 8


def test_the_classes_of_a_local_list_are_counted(tmp_path):
    table = {"url": ["http://a.example/1.jpg"] * 3, "text": ["x"] * 3, "label": [0, 4, None]}
    pq.write_table(pa.table(table), tmp_path / "list.parquet")
    own = [
        f"data.select_urls.sources=[{tmp_path / 'list.parquet'}]",
        "data.photographs=null",
        "data.download.serve=",
    ]
    assert load_config(Config, [*own, "generator=mixer_class_tiny"]).generator.num_classes == 5
