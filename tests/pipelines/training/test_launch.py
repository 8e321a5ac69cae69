"""What is refused before there is a process."""

import subprocess
import sys

import pytest

from pipelines.configuration.compose import ConfigError, load_config
from pipelines.configuration.schema import Config
from pipelines.workflows import build


def test_a_plan_refuses_to_train_all_of_an_encoder_without_images():
    overrides = ["encoder.trainable=everything", "train.decoder_first_steps=5"]
    with pytest.raises(ValueError, match="decoder_first_steps 5 trains without images"):
        build(load_config(Config, overrides))
    build(load_config(Config, [overrides[0], "train.decoder_first_steps=0"]))


def test_a_recipe_refuses_workers_that_come_and_go_without_checkpoints():
    with pytest.raises(ConfigError, match=r"min_workers 2 .* set train.checkpoint_every_seconds to 300"):
        load_config(Config, ["train.tokenizer.min_workers=2", "train.tokenizer.checkpoint_every_seconds=900"])


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["launcher=process", "workers=2"], "launcher process is one process, and train.workers 2"),
        (["launcher=torchrun", "workers=2", "min_workers=1"], "min_workers 1 lets processes come and go"),
        (["workers=0"], "workers must be at least 1"),
        (["strategy=fsdp", "workers=4", "shards=3"], "shards 3 does not divide 4 workers"),
        (["workers=4", "shards=2"], "shards 2 divides the model"),
        (["workers=1", "cuda_graphs=true"], "cuda_graphs records the step of a GPU"),
        (["compile_mode=max-autotune-no-cudagraphs"], "train.compile is false"),
    ],
)
def test_a_launcher_refuses_what_it_cannot_do(overrides, said):
    with pytest.raises(ConfigError, match=said):
        load_config(Config, [f"train.tokenizer.{override}" for override in overrides])


def test_what_a_gpu_can_do_is_taken_there():
    config = load_config(Config, ["device=cuda", "train.generator.cuda_graphs=true"])
    assert config.train.generator.cuda_graphs and config.train.generator.gpus_per_worker == 1


def test_a_training_in_this_process_knows_no_ray():
    program = "import pipelines.training.launch, sys; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["False"], done.stderr[-1000:]
