"""What is told of layers is what their tensors hold, however they are divided."""

import math
from dataclasses import replace

import pytest
import torch

from reptok.training.norms import LayerNorms, layer_of


@pytest.fixture(scope="module")
def data(tmp_path_factory, trainings, small_dataset, tiny_models):
    return trainings.write_data(tmp_path_factory.mktemp("data"), small_dataset, tiny_models)


def looked(training) -> dict[int, dict[str, float]]:
    return {step: values for step, values in training.logged if any(n.startswith("norms/") for n in values)}


@pytest.mark.parametrize("kind", ["tokenizer", "class"])
def test_every_layer_is_told_at_intervals_and_changes_nothing(kind, trainings, tiny_models, data):
    config = replace(trainings.CONFIG, norms_every=3)
    plain = trainings.Training(kind, tiny_models, data).run(7)
    seen = trainings.Training(kind, tiny_models, data, config).run(7)
    assert all(torch.equal(a, plain.state.tensors()[n]) for n, a in seen.state.tensors().items())
    assert looked(seen).keys() == {3, 6} and not looked(plain)
    names = looked(seen)[3].keys()
    layers = {layer_of(name) for name in seen.state.weights}
    for what in ("gradient", "weight"):
        assert {f"norms/{what}/{layer}" for layer in layers} <= names
    block = {"tokenizer": "tokenizer.decoder.blocks.1", "class": "generator.network.blocks.1"}[kind]
    assert f"norms/activation/{block}" in names
    assert (f"norms/attention_scale/{block}" in names) == (kind == "tokenizer")
    assert all(math.isfinite(value) for value in looked(seen)[6].values())


def test_the_numbers_are_those_of_the_tensors(trainings, tiny_models, data):
    training = trainings.Training("tokenizer", tiny_models, data, replace(trainings.CONFIG, norms_every=1))
    block = training.objective.tokenizer.decoder.blocks[1]
    squares = sum(float(p.detach().square().sum()) for p in block.parameters())
    training.run(1)
    (values,) = looked(training).values()
    assert values["norms/weight/tokenizer.decoder.blocks.1"] == pytest.approx(math.sqrt(squares))
    assert values["norms/attention_scale/tokenizer.decoder.blocks.1"] == pytest.approx(10.0)  # as it begins
    gradients = [value for name, value in values.items() if name.startswith("norms/gradient/")]
    logged = next(entry["train/grad_norm"] for _, entry in training.logged if "train/grad_norm" in entry)
    assert math.hypot(*gradients) == pytest.approx(logged, rel=1e-5)


def test_an_output_is_measured_where_it_leaves_its_block(trainings, tiny_models, data):
    training = trainings.Training("class", tiny_models, data)
    norms = LayerNorms(training.objective, 1)
    name, block = "generator.network.blocks.0", training.objective.generator.network.blocks[0]
    with norms.watching():
        out = block(torch.randn(2, 3, 32))
    found = norms.measure(training.state.weights, training.parallel)
    assert float(found[f"norms/activation/{name}"]) == pytest.approx(float(out.square().mean().sqrt()))
    assert not block._forward_hooks, "a step that is not looked at costs nothing"
