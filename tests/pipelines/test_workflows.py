"""Every recipe composes, and its stages order themselves."""

import pytest
from PIL import Image

from pipelines.configuration.compose import CONF_DIR, load_config
from pipelines.configuration.schema import Config
from pipelines.dag.graph import ordered
from pipelines.dag.planner import plan
from pipelines.dag.stage import Resources
from pipelines.workflows import build


def names(*overrides):
    return [stage.name for stage in ordered(build(load_config(Config, overrides)))]


@pytest.fixture
def folder(tmp_path):
    for number in range(8):
        (tmp_path / ("cat", "dog")[number % 2]).mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / ("cat", "dog")[number % 2] / f"{number}.png")
    return tmp_path


FOLDERS = [CONF_DIR, *Config.extra_folders()]
RECIPES = {path.stem: path for folder in FOLDERS for path in sorted((folder / "experiment").glob("*.yaml"))}

SMALL = ["data.image_size=64", "encoder=zoo", "vae=zoo", "decoder=tiny", "generator=mixer_class_tiny"]


@pytest.mark.parametrize("experiment", RECIPES)
def test_every_recipe_composes_plans_and_says_what_it_is(experiment, folder, tmp_path):
    own = [f"data.folder={folder}"] * ("imagenet" in experiment or "finetune" in experiment)
    if "finetune" in experiment:  # from a model at hand, which has these sizes
        own += ["init=zoo/reptok_class", *SMALL]
    scoring = experiment == "evaluate"
    if scoring:
        own += ["model=zoo/reptok_class", "evaluate.samples.images=2"]
    config = load_config(Config, [f"experiment={experiment}", f"root={tmp_path / 'root'}", *own])
    planned = plan(build(config), config.root)
    assert {stage.action for stage in planned} == {"run"}
    assert ("sample_images" if scoring else "train_generator") in [stage.stage.name for stage in planned]
    lines = RECIPES[experiment].read_text().splitlines()
    for word in ("command", "hardware", "time", "score"):
        assert any(line.startswith(f"# {word} ") for line in lines), word
    for train in (config.train.tokenizer, config.train.generator):  # a part that a GPU can hold
        assert train.batch_size / max(1, train.min_workers or train.workers) / train.accumulate <= 256


def test_text_to_image_comes_from_urls():
    described = ["caption", "shard"]
    for experiment in ("demo", "smoke"):
        expected = ["photograph_web", "select_urls", "download", *described]
        assert names(f"experiment={experiment}")[:5] == expected
    expected = ["select_urls", "download", "filter_images", *described]
    assert names("experiment=t2i_coyo")[:5] == expected


def test_classes_come_from_the_photographs_or_from_a_folder(folder):
    assert names("experiment=demo_classes")[:2] == ["photograph_folder", "import_images"]
    own = (f"data.folder={folder}",)
    assert names("data=folder", *own, "generator=mixer_class_tiny")[0] == "import_images"
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
    assert large.resources == Resources(cpus=6, gpus=1, elastic=True)
    assert large.config.captioner.compute.device == "cuda"
    assert small.config.captioner.model.path == "zoo/captioner" and small.resources.gpus == 0


MODEL = ["encode_latents", "train_tokenizer", "encode_tokens"]


@pytest.mark.parametrize("experiment", ["demo", "t2i_coyo"])
@pytest.mark.parametrize(
    ("chosen", "stages"),
    [
        ((), ["import_images"]),
        (("captioner=zoo",), ["import_images", "caption", "shard"]),
        (("generator=mixer_class_tiny",), ["import_images"]),
        (("generator=mixer_unconditional_tiny",), ["import_images"]),
        (("data.captions.join.table=[t.csv]",), ["index_captions", "import_images"]),
    ],
)
def test_stages_follow_from_source_captioner_and_condition(experiment, chosen, stages, folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    (folder.parent / "t.csv").write_text("key,caption\n")
    own = (f"experiment={experiment}", "data=folder", f"data.folder={folder}", *chosen)
    found = names(*own)
    assert found[: len(stages) + 3] == stages + MODEL


def test_captions_of_a_list_are_joined_by_url(tmp_path):
    (tmp_path / "t.csv").write_text("key,caption\n")
    stages = build(load_config(Config, [f"data.captions.join.table=[{tmp_path / 't.csv'}]"]))
    assert next(stage for stage in stages if stage.name == "caption").inputs[:2] == ("images", "texts")


def test_captions_stay_as_they_come_outside_of_the_demos_web(folder):
    def captioner(*overrides):
        return load_config(Config, overrides).captioner

    own = ("data=folder", f"data.folder={folder}")
    assert captioner(*own).model is None and captioner("experiment=t2i_coyo", *own).model is None
    assert captioner("captioner=source").model is None
    assert captioner(*own, "captioner=zoo").mix == 1.0
    assert captioner("captioner=internvl3_1b", "device=cuda").mix == 1.0
    assert (captioner().mix, captioner().val_mix) == (0.5, 0.0)
    assert captioner("experiment=t2i_coyo").mix == 0.75
    assert captioner(*own, "captioner=zoo", "captioner.mix=0.25").mix == 0.25


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model=zoo/reptok_class"], "model= is for experiment=evaluate"),
        (["experiment=evaluate"], "model"),
        (["experiment=evaluate", "model=zoo/reptok_class"], "say how many images"),
        (
            ["experiment=evaluate", "model=zoo/reptok_class", "protocol=adm256_50k"],
            "evaluate.scores.reference=PATH",
        ),
        (["experiment=evaluate", "model=zoo/reptok_class", "protocol=fid"], "no protocol 'fid'"),
    ],
)
def test_what_cannot_be_scored_is_told_before_anything_runs(overrides, words):
    with pytest.raises(ValueError, match=words):
        build(load_config(Config, overrides))


def test_a_published_model_is_scored_where_a_reference_is_given(tmp_path):
    (tmp_path / "r.npz").write_bytes(b"pictures")
    own = ["experiment=evaluate", "model=zoo/reptok_class", "evaluate.samples.images=4"]
    assert names(*own) == ["sample_images"]
    scored = [f"evaluate.scores.reference={tmp_path}/r.npz", "evaluate.scores.encoder=zoo/encoder"]
    looks = ["look_at_reference_vit", "look_at_samples_vit"]
    assert sorted(names(*own, *scored)) == [*looks, "sample_images", "score_samples"]
    rebuilt = [*own, *scored, "evaluate.scores.task=reconstruction"]
    assert sorted(names(*rebuilt)) == [*looks, "reconstruct_images", "score_samples"]


def test_a_model_is_scored_on_the_validation_split_of_any_data(tmp_path, folder):
    """By any number of networks; the data may be the demo's, and have pictures of the model's size."""
    scored = [
        "experiment=evaluate",
        "model=zoo/reptok",
        "protocol=own",
        "evaluate.scores.encoder=zoo/encoder",
    ]
    looks = [f"look_at_{what}_{name}" for what in ("reference", "samples") for name in ("clip", "vit")]
    own = [*scored, "data=folder", f"data.folder={folder}", f"evaluate.scores.clip={tmp_path}"]
    assert sorted(names(*own)) == sorted(
        ["import_images", *looks, "sample_images", "score_samples", "take_validation"]
    )
    assert load_config(Config, scored).data.image_size == 64
    assert {"download", "shard", "take_validation"} <= set(names(*scored))
    rebuilt = [*own, "evaluate.scores.task=reconstruction"]
    assert {"reconstruct_images", "take_validation", *looks} <= set(names(*rebuilt))
    with pytest.raises(ValueError, match=r"leave evaluate\.scores\.reference out"):
        names(*own, f"evaluate.scores.reference={tmp_path}")


def test_cocos_protocols_ask_for_its_captions(tmp_path):
    scored = ["experiment=evaluate", "model=zoo/reptok", "protocol=coco2014_30k"]
    judged = [*scored, "evaluate.scores.encoder=zoo/encoder", f"evaluate.scores.reference={tmp_path}"]
    with pytest.raises(ValueError, match=r"evaluate\.scores\.annotations=PATH"):
        names(*judged)
    (tmp_path / "captions.json").write_text("{}")
    found = names(*judged, f"evaluate.scores.annotations={tmp_path}/captions.json")
    assert {"take_coco", "sample_images", "score_samples"} <= set(found)
