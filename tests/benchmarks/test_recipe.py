"""A recipe's trainings are measured with its own sizes and its share of the batch for one process."""

import pytest
import torch

from benchmarks import recipe as bench_train
from pipelines.configuration.compose import load_config
from pipelines.configuration.schema import Config
from reptok.flops import decoder_training, encoder_training, generator_training


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_the_demo_is_measured_as_one_of_its_processes_trains(capsys):
    config = load_config(Config, ["experiment=demo"])
    found = bench_train.measure(config, "tokenizer", seconds=0.2)
    assert found.training.flops_per_image == encoder_training(config.encoder) + 2 * decoder_training(
        config.decoder
    )
    assert found.training.batch_size <= 16  # 32 on two processes; less where even that takes too long
    assert "demo, tokenizer on CPU" in capsys.readouterr().out
    found = bench_train.measure(config, "generator", seconds=0.2)
    assert found.training.flops_per_image == generator_training(config.generator, text_length=32)
    assert found.utilisation > 0


def test_wrong_use_is_named(capsys):
    assert bench_train.main(["part=vae"]) == 2
    assert "part is tokenizer, generator or both, not 'vae'" in capsys.readouterr().err
    assert bench_train.main(["part=tokenizer", "experiment=demo_latents"]) == 2
    assert "experiment=demo_latents trains no tokenizer" in capsys.readouterr().err
    assert bench_train.main(["experiment=demmo"]) == 2
