"""Four processes as two copies of the model, each divided between two, train as one does but for rounding."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from reptok.data.loader import TokenizerData
from reptok.training.parallel import parallelize
from reptok.training.preview import draw_together
from reptok.training.tokenizer import reconstructions
from reptok.training.validation import validate

SCRIPT = Path(__file__).parents[2] / "fixtures" / "four_processes.py"
STEPS = 8


@pytest.fixture(scope="module")
def ran(trainings, tiny_models, small_dataset, tmp_path_factory):
    """(what four processes left, a function that begins the same training in this one)."""
    out = tmp_path_factory.mktemp("four")
    data = trainings.write_data(out / "data", small_dataset, tiny_models)
    config = replace(trainings.CONFIG, batch_size=8, norms_every=2, eval_every=4)

    def begin():
        return trainings.Training("tokenizer", tiny_models, data, config, trainable="everything")

    training = begin()
    checkpoints = training.checkpoints(out / "checkpoints")
    training.run(2, save=checkpoints.save)
    checkpoints.wait()
    command = [sys.executable, str(SCRIPT), str(tiny_models), str(data), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return out, begin


def finished(training) -> dict[str, torch.Tensor]:
    return {n: t for n, t in training.state.tensors().items() if n.startswith(("weights/", "ema/"))}


def close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    assert found.keys() == expected.keys()
    return all(torch.allclose(found[n], expected[n], rtol=1e-5, atol=1e-5) for n in expected)


@pytest.fixture(scope="module")
def alone(ran):
    """The same training in one process, with the loss curve, norms and validation that it told last."""
    training = ran[1]()

    def look(step):
        return validate(training.parallel, training.state.ema, training.data, samples=5, batch_size=4)

    training.run(STEPS, evaluate=look)
    return training, {name: value for _, values in training.logged for name, value in values.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddp", "hsdp", "hsdp_accumulated"])
def test_copies_that_are_divided_train_as_whole_ones_and_as_one(ran, alone, name):
    """Weights, average, losses, norms of layers, validation and pictures."""
    (out, _), (training, told) = ran, alone
    assert close(load_file(out / f"{name}.safetensors"), finished(training))
    theirs = json.loads((out / f"{name}.json").read_text())
    compared = [n for n in told if n.startswith(("train/", "val/", "norms/"))]
    if "accumulated" in name:  # of several parts only the last one's outputs are told
        compared = [n for n in compared if not n.startswith("norms/activation/")]
    assert {"train/grad_norm", "val/loss"} <= set(compared)
    for key in compared:
        assert theirs[key] == pytest.approx(told[key], rel=1e-3, abs=1e-5), key
    preview = reconstructions(TokenizerData(out / "data" / "dataset", out / "data" / "latents", "val"))
    with training.parallel.evaluating(training.state.ema) as objective:
        grid = draw_together(preview, objective, training.parallel)
    expected = np.array([pictures for _, pictures in grid.rows]).astype(int)
    assert expected.shape == (3, 3, 32, 32, 3)
    assert abs(np.load(out / f"{name}.npy").astype(int) - expected).max() <= 1


@pytest.mark.slow
def test_a_checkpoint_goes_on_at_any_other_mesh(ran, alone):
    """From one process to two copies of two, one copy among four, and back to one process."""
    (out, begin), (undisturbed, _) = ran, alone
    places = {place.name: len(list(place.glob("*.safetensors"))) for place in (out / "checkpoints").iterdir()}
    assert places == {"step-00000004": 2, "step-00000006": 4}, "of two copies one is written"
    last = begin()
    last.checkpoints(out / "checkpoints").load_newest()
    assert last.state.step == 6
    assert close(finished(last.run(STEPS)), finished(undisturbed))


def test_processes_that_cannot_be_divided_are_refused(trainings, tiny_models):
    with pytest.raises(ValueError, match=r"train\.shards 4 does not divide the 6 processes"):
        parallelize(trainings.objective_of("class", tiny_models), "fsdp", world_size=6, shards=4)
