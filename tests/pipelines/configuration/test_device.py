"""One key says where every network computes; what contradicts it is refused."""

import pytest

from pipelines import plan, workflows
from pipelines.configuration.compose import ConfigError, load_config
from pipelines.configuration.schema import Config


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_one_key_moves_every_network_to_the_gpu(capsys):
    config = load_config(Config, ["device=cuda"])
    on = [
        config.encode.compute,
        config.captioner.compute,
        config.evaluate.tokenizer,
        config.evaluate.generator,
    ]
    assert {part.device for part in on} == {"cuda"}
    gpus = [config.encode.workers.gpus, config.captioner.workers.gpus]
    gpus += [config.train.tokenizer.gpus_per_worker, config.train.generator.gpus_per_worker]
    assert gpus == [1, 1, 1, 1] and config.cluster.num_gpus == 1
    assert "train.tokenizer.workers=1, not 2: cluster.num_gpus=1" in capsys.readouterr().err


def test_no_stage_asks_for_more_gpus_than_the_machine_has():
    for overrides in (["device=cuda"], ["device=cuda", "cluster.num_gpus=2"]):
        config = load_config(Config, overrides)
        stages = workflows.build(config)
        used = {stage.name: stage.resources.gpus for stage in stages if stage.resources.gpus}
        assert max(used.values()) <= config.cluster.num_gpus
        assert {
            "caption",
            "encode_latents",
            "train_tokenizer",
            "encode_tokens",
            "train_generator",
        } <= used.keys()
        assert {"evaluate_tokenizer", "evaluate_generator"} <= used.keys()
    assert config.train.tokenizer.workers == 2


def test_without_the_key_nothing_asks_for_a_gpu():
    config = load_config(Config, [])
    assert config.device == "cpu" and config.train.tokenizer.workers == 2
    assert not any(stage.resources.gpus for stage in workflows.build(config))


def test_where_a_model_computes_is_no_part_of_its_identity_but_of_what_is_encoded(tmp_path):
    """Trainings and evaluations may move between machines; encoded bytes differ in the last bits."""

    def fingerprints(*overrides):
        stages = workflows.build(load_config(Config, [*overrides]))
        from pipelines.dag.planner import plan as planned

        return {p.stage.name: p.artifact.fingerprint for p in planned(stages, str(tmp_path))}

    cpu, cuda = fingerprints(), fingerprints("device=cuda")
    assert cpu["download"] == cuda["download"] and cpu["encode_latents"] != cuda["encode_latents"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["encode.compute.device=cuda"], "encode.compute.device=cuda contradicts device=cpu"),
        (
            ["device=cuda", "evaluate.generator.device=cpu"],
            "evaluate.generator.device=cpu contradicts device=cuda",
        ),
        (["train.generator.gpus_per_worker=1"], "train.generator.gpus_per_worker=1 contradicts device=cpu"),
        (["device=cuda", "encode.workers.gpus=0"], "encode.workers.gpus=0 contradicts device=cuda"),
        (["device=cuda", "cluster.num_gpus=0"], "cluster.num_gpus=0 contradicts device=cuda"),
        (["encode.compute.precision=bfloat16"], "needs device=cuda; the CPU computes float32"),
        (["captioner=internvl3_1b"], "needs device=cuda; the CPU computes float32"),
        (["device=tpu"], "device is one of cpu, cuda, not 'tpu'"),
    ],
)
def test_what_contradicts_the_device_is_refused(overrides, message, tmp_path, capsys):
    assert plan.main([*overrides, f"root={tmp_path}/runs"]) == 2
    assert message in capsys.readouterr().err


def test_the_papers_recipes_name_it_once():
    recipes = {"imagenet256_24gb": (1, 1), "imagenet256": (0, 8)}  # 0: as many as there are GPUs
    for experiment, workers in recipes.items():
        config = load_config(
            Config, [f"experiment={experiment}", "data.folder=-", "generator.num_classes=1000"]
        )
        assert config.encode.compute.device == "cuda" and config.train.tokenizer.gpus_per_worker == 1
        assert (config.encode.workers.workers, config.train.tokenizer.workers) == workers
    with pytest.raises(ConfigError, match="needs device=cuda"):
        load_config(Config, ["experiment=t2i_coyo", "device=cpu"])
