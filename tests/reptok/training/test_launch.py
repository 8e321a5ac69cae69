"""The same training by each launcher of the library; Ray Train's stands in tests/pipelines/training."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from reptok.data.remote import RemotePath
from reptok.training.config import OptimConfig, TrainConfig
from reptok.training.launch import in_process, read_description, torchrun, write_description
from reptok.training.log import FolderLog, Follower
from reptok.training.preview import Grid
from reptok.training.run import finished_folder
from reptok.training.tokenizer import TokenizerTraining
from tests.fixtures.trainings import tokenizer, write_data

TRAIN = TrainConfig(
    steps=5,
    batch_size=4,
    optim=OptimConfig(lr=1e-2, eps=1e-2, warmup_steps=2),
    ema_decay=0.5,
    log_every=2,
    eval_every=0,
    launcher="process",
)


@pytest.fixture(scope="module")
def training(tmp_path_factory, small_dataset, tiny_models):
    folder = write_data(tmp_path_factory.mktemp("data"), small_dataset, tiny_models)
    return TokenizerTraining(
        train=TRAIN,
        tokenizer=tokenizer(tiny_models).config,
        dataset=folder / "dataset",
        latents=folder / "latents",
        decoder_first_steps=1,
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(finished_folder(folder) / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def expected(training, tmp_path_factory):
    """What a process leaves."""
    folder = tmp_path_factory.mktemp("process")
    assert in_process(training, folder, FolderLog(folder))
    return folder


@pytest.mark.slow
def test_torchrun_with_one_process_gives_the_same_bits_and_the_same_curves(training, expected, tmp_path):
    log = FolderLog(tmp_path / "told")
    torchrun(replace(training, train=replace(TRAIN, launcher="torchrun")), tmp_path, log)
    ours, theirs = weights(tmp_path), weights(expected)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert losses(tmp_path / "told") == losses(expected) and len(losses(expected)) == 4
    assert (tmp_path / "told" / "pictures" / "reconstructions-00000005.png").exists()


def test_torchrun_with_two_processes_gives_the_same_weights(training, expected, tmp_path):
    two = replace(TRAIN, launcher="torchrun", workers=2)
    torchrun(replace(training, train=two), tmp_path, FolderLog(tmp_path / "told"))
    ours, theirs = weights(tmp_path), weights(expected)
    assert all(torch.allclose(ours[name], theirs[name], rtol=1e-5, atol=1e-5) for name in theirs)


def losses(folder: Path) -> list[tuple[int, str, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [
        (line["step"], name, line["metrics"][name])
        for line in lines
        for name in ("train/loss", "val/loss")
        if name in line.get("metrics", {})
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param([], id="alone"),
        pytest.param(["--processes", "2"], id="two", marks=pytest.mark.slow),
    ],
)
def test_the_documented_command_trains_what_a_folder_describes(arguments, training, expected, tmp_path):
    write_description(training, tmp_path)
    command = [sys.executable, "-m", "reptok.training", str(tmp_path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"the model: {finished_folder(tmp_path) / 'model'}" in done.stdout
    ours, theirs = weights(tmp_path), weights(expected)
    assert all(torch.allclose(ours[name], theirs[name], rtol=1e-5, atol=1e-5) for name in theirs)


def test_a_description_is_read_as_it_was_written(training, tmp_path):
    write_description(training, tmp_path)
    assert read_description(tmp_path) == training
    remote = replace(training, latents=RemotePath("s3://bucket/runs/latents/0"))
    write_description(remote, tmp_path)
    assert read_description(tmp_path) == remote


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "captioner"}, "kind must be one of tokenizer, generator, not 'captioner'"),
        ({"drawz": 2}, "has no 'drawz'"),
        (
            {"train": {"steps": 5, "batch_size": 4, "precision": "int8"}},
            "must be float32 or bfloat16",
        ),
        ({"dataset": 3}, "dataset must be a path, got 3"),
    ],
)
def test_a_description_that_is_wrong_is_refused_by_name(training, tmp_path, change, said):
    path = write_description(training, tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=said):
        read_description(tmp_path)


def test_a_folder_without_a_description_is_refused_with_what_to_do(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "reptok.training", str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 2 and "write_description" in done.stderr and "Traceback" not in done.stderr


def test_pictures_that_another_process_logs_arrive_whole(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8, 3), dtype=np.uint8)
    told: list = []

    class Log:
        def grid(self, grid, step):
            told.append((grid, step))

    follower = Follower(tmp_path, Log())
    rows = [("a cat", list(pixels[0])), ("", list(pixels[1]))]
    FolderLog(tmp_path).grid(Grid("samples", ["a", "b", "c"], rows), 4)
    follower.read()
    follower.read()
    ((grid, step),) = told
    assert (grid.name, grid.columns, step) == ("samples", ["a", "b", "c"], 4)
    assert [label for label, _ in grid.rows] == ["a cat", ""]
    assert np.array_equal([pictures for _, pictures in grid.rows], pixels)
