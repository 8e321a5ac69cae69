"""Memory is counted, not guessed: the recipe for 24 GB fits, and the count follows what the step does."""

from dataclasses import replace

import pytest

from benchmarks.memory import generator_memory, share, tokenizer_memory
from pipelines.configuration.compose import load_config
from pipelines.configuration.schema import Config

GB = 1e9


def recipe(*overrides):
    anywhere = ["init=-", "data.folder=-", "generator.num_classes=1000"]
    return load_config(Config, ["experiment=finetune_24gb", *anywhere, *overrides])


def test_the_fine_tune_fits_into_24_gb_as_its_header_says():
    config = recipe()
    for memory in (tokenizer_memory(config), generator_memory(config)):
        assert memory.total < 16 * GB
    assert config.device == "cuda" and config.cluster.num_gpus == 1


def test_activations_grow_with_the_part_and_the_state_does_not():
    small = load_config(Config, [])
    config = replace(small.train.tokenizer, batch_size=8, workers=1)
    few = tokenizer_memory(replace(small, train=replace(small.train, tokenizer=config)))
    doubled = replace(config, batch_size=16)
    many = tokenizer_memory(replace(small, train=replace(small.train, tokenizer=doubled)))
    assert many.state == few.state and many.frozen == few.frozen
    assert many.activations == pytest.approx(2 * few.activations, rel=0.05)
    assert share(replace(doubled, accumulate=3)) == 6


def test_it_counts_what_autograd_keeps():
    """The demo's decoder and token embedding train: 1.7 M parameters, each five times four bytes."""
    memory = tokenizer_memory(load_config(Config, []))
    assert 1.6e6 < memory.state / 20 < 1.8e6
    assert memory.activations > 0 < memory.frozen
