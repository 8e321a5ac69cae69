"""Two processes and one, replicas and shards: the same training up to rounding."""

import itertools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from reptok.training.checkpoint_files import newest
from reptok.training.validation import validate

SCRIPT = Path(__file__).parents[2] / "fixtures" / "two_processes.py"
STEPS, BATCH = 8, 4


@pytest.fixture(scope="module", params=["tokenizer", pytest.param("class", marks=pytest.mark.slow)])
def ran(request, trainings, tiny_models, small_dataset, tmp_path_factory):
    """(kind, folder of what two processes left, a function that begins a training in this process)."""
    out = tmp_path_factory.mktemp(request.param)
    data = trainings.write_data(out / "data", small_dataset, tiny_models)

    def begin():
        return trainings.Training(request.param, tiny_models, data)

    for strategy in ("ddp", "fsdp"):
        training = begin()
        checkpoints = training.checkpoints(out / f"checkpoints-{strategy}")
        training.run(3, save=checkpoints.save)
        checkpoints.wait()
    command = [sys.executable, str(SCRIPT), str(tiny_models), str(data), str(out), request.param]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return out, begin


def close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    assert found.keys() == expected.keys()
    return all(torch.allclose(found[n], expected[n], rtol=1e-5, atol=1e-5) for n in expected)


def weights_and_average(training) -> dict[str, torch.Tensor]:
    return {n: t for n, t in training.state.tensors().items() if n.startswith(("weights/", "ema/"))}


@pytest.mark.parametrize("name", ["ddp", "fsdp", "ddp_accumulated", "fsdp_accumulated"])
def test_two_processes_are_one_with_the_whole_batch(ran, name):
    out, begin = ran
    assert close(load_file(out / f"{name}.safetensors"), weights_and_average(begin().run(STEPS)))


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_from_one_process_to_two_and_back_loses_and_repeats_no_sample(ran, strategy):
    out, begin = ran
    undisturbed, last = begin().run(STEPS), begin()
    last.checkpoints(out / f"checkpoints-{strategy}").load_newest()
    assert last.state.step == 5
    last.run(STEPS)
    assert close(weights_and_average(last), weights_and_average(undisturbed))
    ranks = [rank_reads(out, strategy, rank) for rank in (0, 1)]
    middle = [np.concatenate(shares) for shares in zip(*ranks, strict=True)]
    read = np.concatenate([*begin().run(3).read, *middle, *last.read])
    assert read.tolist() == np.concatenate(undisturbed.read).tolist()
    assert [sorted(read[e * 11 : e * 11 + 11]) for e in range(2)] == [list(range(11))] * 2


def rank_reads(out: Path, strategy: str, rank: int) -> list[np.ndarray]:
    with np.load(out / f"read-middle-{strategy}-{rank}.npz") as arrays:
        return [arrays[name] for name in arrays.files]


def test_a_sharded_checkpoint_has_one_file_for_each_process(ran):
    place = newest(ran[0] / "checkpoints-fsdp")
    assert sorted(path.name for path in place.iterdir()) == [
        "rank-00000.safetensors", "rank-00001.safetensors", "state.json",
    ]  # fmt: skip
    sizes = [path.stat().st_size for path in sorted(place.glob("rank-*"))]
    assert sizes[1] > 0.7 * sizes[0]


WAYS = list(itertools.product(
    ("nothing", "cls", "everything"), ("ddp", "fsdp"), (False, True), ("none", "full"), (1, 2)
))  # fmt: skip
WAYS += [
    ("cls", strategy, compiled, "selective", 2) for strategy in ("ddp", "fsdp") for compiled in (False, True)
]


ALL = [
    pytest.param(
        [way for way in WAYS if way[0] == trainable],
        id=f"all, trainable={trainable}",
        marks=[pytest.mark.slow, pytest.mark.timeout(3100)],
    )
    for trainable in ("nothing", "cls", "everything")
]


@pytest.mark.parametrize("ways", ALL)
def test_every_way_to_train_is_the_plain_one(ways, trainings, tiny_models, small_dataset, tmp_path):
    """Trainable x strategy x compile x recompute x accumulate, in two processes, whose weights differ at
    first, and which validate after every step: all end like one process that does none of it, with the same
    norms of layers and the same validation."""
    data = trainings.write_data(tmp_path / "data", small_dataset, tiny_models)
    command = [sys.executable, str(SCRIPT), str(tiny_models), str(data), str(tmp_path), "tokenizer"]
    done = subprocess.run([*command, json.dumps(ways)], capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stderr[-3000:]
    config = replace(trainings.CONFIG, norms_every=2)
    plain = {
        trainable: trainings.Training("tokenizer", tiny_models, data, config, trainable=trainable).run(3)
        for trainable in {way[0] for way in ways}
    }
    trained = {trainable: len(training.state.weights) for trainable, training in plain.items()}
    assert trained.get("everything", 10**6) > trained.get("nothing", 0)
    for way in ways:
        name, one = "-".join(map(str, way)), plain[way[0]]
        assert close(load_file(tmp_path / f"{name}.safetensors"), weights_and_average(one)), way
        norms = next(v for _, v in one.logged if any(n.startswith("norms/") for n in v))
        if way[4] > 1:  # of several parts only the last one's outputs are told
            norms = {n: v for n, v in norms.items() if not n.startswith("norms/activation/")}
        losses = validate(one.parallel, one.state.ema, one.data, samples=5, batch_size=4)
        told = json.loads((tmp_path / f"{name}.json").read_text())
        for key, value in {**norms, **losses}.items():
            assert told[key] == pytest.approx(value, rel=1e-3, abs=1e-5), (way, key)
