"""Every recipe composes, and its stages order themselves."""

import pytest
from PIL import Image

from pipelines.configuration.compose import CONF_DIR, load_config
from pipelines.configuration.schema import Config
from pipelines.dag.graph import ordered
from pipelines.dag.planner import plan
from pipelines.workflows import build


def names(*overrides):
    return [stage.name for stage in ordered(build(load_config(Config, overrides)))]


@pytest.fixture
def folder(tmp_path):
    for subject in ("cat", "dog"):
        (tmp_path / subject).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / subject / "1.png")
    return tmp_path


FOLDERS = [CONF_DIR, *Config.extra_folders()]
RECIPES = {path.stem: path for folder in FOLDERS for path in sorted((folder / "experiment").glob("*.yaml"))}


@pytest.mark.parametrize("experiment", RECIPES)
def test_every_recipe_composes_plans_and_says_what_it_is(experiment, folder, tmp_path):
    own = [f"data.import_images.folder={folder}"] * ("imagenet" in experiment)
    config = load_config(Config, [f"experiment={experiment}", f"root={tmp_path / 'root'}", *own])
    planned = plan(build(config), config.root)
    assert {stage.action for stage in planned} == {"run"}
    assert "train_generator" in [stage.stage.name for stage in planned]
    lines = RECIPES[experiment].read_text().splitlines()
    for word in ("command", "hardware", "time", "score"):
        assert any(line.startswith(f"# {word} ") for line in lines), word
    for train in (config.train.tokenizer, config.train.generator):  # a part that a GPU can hold
        assert train.batch_size / max(1, train.min_workers or train.workers) / train.accumulate <= 256


def test_text_to_image_comes_from_urls():
    for experiment in ("demo", "smoke", "t2i_coyo"):
        data = ("photograph_web", "select_urls", "download", "caption", "shard")
        expected = data if experiment != "t2i_coyo" else data[1:]
        assert names(f"experiment={experiment}")[: len(expected)] == list(expected)


def test_classes_come_from_the_photographs_or_from_a_folder(folder):
    assert names("experiment=demo_classes")[:2] == ["photograph_folder", "import_images"]
    own = (f"data.import_images.folder={folder}",)
    assert names("experiment=demo_classes", *own)[0] == "import_images"
    assert names("experiment=imagenet256", *own)[0] == "import_images"


def test_latents_take_the_place_of_tokens():
    assert names("experiment=demo_latents") == [
        "photograph_folder", "wrap_autoencoder", "import_images", "encode_tokens", "train_generator",
        "evaluate_generator", "publish",
    ]  # fmt: skip


def test_the_zoo_trains_its_foundations_or_takes_them():
    foundations = {"train_autoencoder", "pretrain_encoder", "train_text_encoder", "train_captioner"}
    assert foundations < set(names("experiment=zoo"))
    trained = {stage.name: stage for stage in build(load_config(Config, ["experiment=zoo"]))}
    assert trained["caption"].inputs == ("images", "captioner")
    published = [f"{group}=zoo" for group in ("vae", "encoder", "text_encoder", "captioner")]
    assert not foundations & set(names("experiment=zoo", *published))
    assert foundations & set(names("experiment=zoo", *published[1:])) == {"train_autoencoder"}


def test_captions_come_from_a_model_on_gpus_or_from_the_zoos():
    def captioner(experiment):
        stages = build(load_config(Config, [f"experiment={experiment}"]))
        return next(stage for stage in stages if stage.name == "caption")

    large, small = captioner("t2i_coyo"), captioner("demo")
    assert large.config.captioner.model.path == "OpenGVLab/InternVL3-1B-hf"
    assert large.resources.gpus == 8 and large.config.captioner.compute.device == "cuda"
    assert small.config.captioner.model.path == "zoo/captioner" and small.resources.gpus == 0
