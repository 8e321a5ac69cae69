"""What surrounds a training in a worker's process, and what is refused before there is one."""

import resource
import subprocess
import sys

import pytest

from pipelines.configuration.compose import ConfigError, load_config
from pipelines.configuration.schema import Config
from pipelines.dag.stage import Workspace
from pipelines.training.fit import flight_recorder
from pipelines.workflows import build


def test_a_worker_opens_as_many_files_as_the_system_allows():
    program = """
import resource
from pipelines.training.process import raise_file_limit
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
raise_file_limit()
files = [open("/dev/null") for _ in range(200)]
print(len(files), resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["200", "True"], done.stderr[-1000:]
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= 200


def test_the_flight_recorder_listens_to_the_names_that_torch_reads():
    """Names change between versions: the library itself must know them."""
    import torch

    with open(f"{torch.__path__[0]}/lib/libtorch_cpu.so", "rb") as file:
        library = file.read()
    for name in flight_recorder(Workspace("/runs/tokenizer", "f00d", None)):
        assert name.encode() in library, name


def test_a_plan_refuses_to_train_all_of_an_encoder_without_images():
    overrides = ["encoder.trainable=everything", "train.decoder_first_steps=5"]
    with pytest.raises(ValueError, match="decoder_first_steps 5 trains without images"):
        build(load_config(Config, overrides))
    build(load_config(Config, [overrides[0], "train.decoder_first_steps=0"]))


def test_a_recipe_refuses_workers_that_come_and_go_without_checkpoints():
    with pytest.raises(ConfigError, match=r"min_workers 2 .* set train.checkpoint_every_seconds to 300"):
        load_config(Config, ["train.tokenizer.min_workers=2", "train.tokenizer.checkpoint_every_seconds=900"])
