"""`init` names a published model: plan says what is taken and what is fresh, or why it cannot be."""

import json

import pytest
from PIL import Image

from pipelines import plan, run_all, workflows
from pipelines.configuration.compose import load_config
from pipelines.configuration.schema import Config


def planned(overrides, root, capsys):
    assert plan.main([*overrides.split(), f"root={root}/runs"]) == 0
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("init: ")]


def stages(*overrides):
    return {stage.name: stage for stage in workflows.build(load_config(Config, [*overrides]))}


def test_the_demo_fits_its_longer_trained_model_whole(tmp_path, capsys):
    lines = planned("init=zoo/reptok", tmp_path, capsys)
    assert [line.split(" from ")[0] for line in lines] == ["init: tokenizer", "init: generator"]
    assert all(line.endswith("fresh: nothing") for line in lines)


def test_another_condition_starts_anew_and_the_network_does_not(tmp_path, capsys):
    tokenizer, generator = planned(
        "init=zoo/reptok experiment=demo_classes generator.depth=6", tmp_path, capsys
    )
    assert tokenizer.endswith("fresh: nothing")
    assert "classes.table" in generator or "classes.embedding" in generator
    assert "network.blocks" in generator  # the sixth block, and the mixing of another number of tokens


def test_a_part_alone_starts_that_part(tmp_path, capsys):
    (line,) = planned("init=zoo/reptok/tokenizer", tmp_path, capsys)
    assert line.startswith("init: tokenizer")
    made = stages("init=zoo/reptok/tokenizer")
    assert made["train_tokenizer"].config.init and not made["train_generator"].config.init
    made = stages("init=hf://owner/name")
    assert made["train_tokenizer"].config.init == made["train_generator"].config.init == "hf://owner/name"


def test_exactly_the_trainings_and_what_follows_are_made_again(tmp_path, capsys):
    def prints(*overrides):
        assert plan.main([*overrides, "format=json", f"root={tmp_path}"]) == 0
        found = json.loads(capsys.readouterr().out)["stages"]
        return {stage["name"]: stage["fingerprint"] for stage in found}

    before, after = prints(), prints("init=zoo/reptok")
    same = {name for name in before if before[name] == after[name]}
    assert same == {"photograph_web", "select_urls", "download", "caption", "shard", "encode_latents"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("init=zoo/encoder", "is no published model to start from"),
        ("init=zoo/reptoc", "did you mean zoo/reptok?"),
        ("init=artifact:model", "start from a folder or a model of the hub"),
    ],
)
def test_what_is_no_model_is_refused_by_plan_and_by_run(overrides, message, tmp_path, capsys):
    for program in (plan.main, run_all.main):
        assert program([*overrides.split(), f"root={tmp_path}/runs"]) == 2
        assert message in capsys.readouterr().err


def test_another_vae_is_refused_before_anything_runs(tmp_path, capsys):
    """Its weights differ by one number; the decoder of the model paints the other's latents."""
    from safetensors.torch import load_file, save_file

    from pipelines.dag.reference import HOME

    folder = tmp_path / "vae"
    folder.mkdir()
    source = HOME / "zoo/autoencoder"
    (folder / "config.json").write_bytes((source / "config.json").read_bytes())
    weights = load_file(source / "diffusion_pytorch_model.safetensors")
    next(iter(weights.values())).view(-1)[0].add_(1)
    save_file(weights, folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    assert plan.main(["init=zoo/reptok", f"vae.path={folder}", f"root={tmp_path}/runs"]) == 2
    said = capsys.readouterr().err
    assert "paints the latents of another VAE" in said and "set vae.path=" in said


def test_the_recipe_for_24_gb_starts_from_a_model_of_its_sizes(tmp_path, capsys):
    """At the demo's sizes the zoo's class model is one; at its own it is refused, and so is none."""
    for number in range(40):
        place = tmp_path / "pictures" / "abc"[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (number, 0, 0)).save(place / f"{number}.png")
    recipe = ["experiment=finetune_24gb", f"data.folder={tmp_path / 'pictures'}"]
    recipe = [*recipe, f"root={tmp_path}/runs"]
    small = ["data.image_size=64", "encoder=zoo", "vae=zoo", "decoder=tiny", "generator=mixer_class_tiny"]
    assert plan.main([*recipe, *small, "init=zoo/reptok_class"]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("init: ")]
    assert said[0].endswith("fresh: nothing")
    assert "classes.table" in said[1] and "learned" not in said[1]
    assert plan.main([*recipe, "init=zoo/reptok_class"]) == 2
    assert "no weight of" in capsys.readouterr().err
    assert plan.main(recipe) == 2
    assert "init" in capsys.readouterr().err
