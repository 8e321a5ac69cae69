"""Trainings of machines that share no disk, but an object store."""

import os
import re
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from reptok.training.checkpoint import Checkpointer
from reptok.training.config import OptimConfig, TrainConfig
from reptok.training.failure import RepeatedFailure, check_failure, forget_failure, written_down
from reptok.training.launch import in_process, write_description
from reptok.training.log import FolderLog
from reptok.training.run import FINISHED, STOP, finished_folder
from reptok.training.shared import Shared, share
from reptok.training.tokenizer import TokenizerTraining

URL = "s3://reptok/runs/_scratch"
TRAIN = TrainConfig(
    steps=5,
    batch_size=4,
    optim=OptimConfig(lr=1e-2, eps=1e-2, warmup_steps=2),
    ema_decay=0.5,
    log_every=1,
    eval_every=0,
    launcher="process",
)


@pytest.fixture(scope="module")
def training(tmp_path_factory, small_dataset, trainings, tiny_models):
    folder = trainings.write_data(tmp_path_factory.mktemp("data"), small_dataset, tiny_models)
    return TokenizerTraining(
        train=TRAIN,
        tokenizer=trainings.tokenizer(tiny_models).config,
        dataset=folder / "dataset",
        latents=folder / "latents",
    )


@pytest.fixture(scope="module")
def undisturbed(training, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert in_process(training, folder, FolderLog(folder))
    return folder


@pytest.fixture
def machine(s3, tmp_path):
    """`machine(name)`: the training's folder on that machine."""

    def there(name):
        share(tmp_path / name, URL)
        return tmp_path / name

    return there


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(finished_folder(folder) / "model" / "model.safetensors")


def stored(s3) -> list[str]:
    found = s3.list_objects_v2(Bucket="reptok", Prefix="runs/_scratch/").get("Contents", [])
    return sorted(entry["Key"].removeprefix("runs/_scratch/") for entry in found)


class Halfway(FolderLog):
    """A log that does something when it hears of the third step."""

    def __init__(self, folder, deed):
        super().__init__(folder)
        self._deed = deed

    def progress(self, step, steps):
        super().progress(step, steps)
        if step == 3:
            self._deed()


def test_what_one_machine_was_asked_to_save_another_ends_and_a_third_one_gets(
    training, undisturbed, machine, s3, s3_server, monkeypatch
):
    monkeypatch.setattr("reptok.training.run.STORE_POLL_SECONDS", 0.0)
    first, second, third = machine("first"), machine("second"), machine("third")
    (third / STOP).touch()
    assert not in_process(training, first, Halfway(first, lambda: Shared.of(third).push(STOP)))
    assert not finished_folder(first).exists() and not list((first / "checkpoints").glob("step-*"))
    (saved,) = (int(name.split("-")[1]) for name in stored(s3) if name.endswith("state.json"))
    assert saved in (3, 4)
    Shared.of(third).remove(STOP)
    assert in_process(training, second, FolderLog(second))
    Shared.of(third).pull(FINISHED)
    ours, theirs = weights(third), weights(undisturbed)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)
    part = re.compile(rf"GET /reptok/runs/_scratch/checkpoints/step-0{{7}}{saved}-.*/rank-00000.safetensors")
    assert any(part.fullmatch(line) for line in s3_server.requests)
    assert not list((second / "checkpoints").glob("step-*"))


def test_the_newest_checkpoint_that_is_whole_counts_and_two_stay(trainings, tiny_models, data, s3, tmp_path):
    def begin(name):
        one = trainings.Training("tokenizer", tiny_models, data)
        return one, Checkpointer(tmp_path / name, one.state, one.parallel, 2, Shared(tmp_path / name, URL))

    one, writer = begin("first")
    for number, place in enumerate(("step-00000002-0badbadbadba", "step-00000009-0badbadbadba")):
        key = f"runs/_scratch/{place}/rank-00001.safetensors"
        s3.put_object(Bucket="reptok", Key=key, Body=bytes(number))
    for step in (1, 2, 3, 4):
        one.run(step)
        writer.save()
    writer.wait()
    kept = sorted({name.partition("/")[0] for name in stored(s3)})
    assert kept.pop() == "step-00000009-0badbadbadba", "others have begun to write it"
    assert [name[:13] for name in kept] == ["step-00000003", "step-00000004"]
    assert not list((tmp_path / "first").glob("step-*"))
    part = f"runs/_scratch/{kept[1]}/rank-00000.safetensors"
    sound = s3.get_object(Bucket="reptok", Key=part)["Body"].read()
    for what, step in (("whole", 4), ("damaged", 3), ("unfinished", 3)):
        if what == "damaged":
            s3.put_object(Bucket="reptok", Key=part, Body=sound[:-1] + bytes([sound[-1] ^ 1]))
        if what == "unfinished":
            s3.put_object(Bucket="reptok", Key=part, Body=sound)
            s3.delete_object(Bucket="reptok", Key=f"runs/_scratch/{kept[1]}/state.json")
        other, reader = begin(what)
        assert reader.load_newest().name == kept[step - 3] and other.state.step == step


@pytest.fixture(scope="module")
def data(tmp_path_factory, small_dataset, trainings, tiny_models):
    return trainings.write_data(tmp_path_factory.mktemp("data"), small_dataset, tiny_models)


def test_a_failure_on_one_machine_is_known_on_all_until_it_is_forgotten(machine, training):
    here, there = machine("here"), machine("there")
    with pytest.raises(ValueError), written_down(there):
        raise ValueError("the ink ran out")
    assert not in_process(training, here, FolderLog(here))
    with pytest.raises(RepeatedFailure, match="ValueError: the ink ran out"):
        check_failure(here)
    forget_failure(here)
    check_failure(machine("third"))


def together(training, folders):
    """A training by one process a machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank, folder in enumerate(folders):
        write_description(training, folder)
        place = {
            "RANK": str(rank), "WORLD_SIZE": str(len(folders)), "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1",
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo",
            "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "reptok.training", str(folder)],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **place},
            )
        )  # fmt: skip
    try:
        return [(process.communicate(timeout=90)[0], process.returncode) for process in processes]
    finally:
        for process in processes:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("first", ["ab", "aa"])
def test_a_model_divided_among_machines_is_saved_and_goes_on_among_others(
    first, training, undisturbed, machine, s3
):
    """Each writes its rows to the store, from which two others with empty disks go on."""
    half = replace(
        training,
        train=replace(TRAIN, strategy="fsdp", launcher="torchrun", workers=2, checkpoint_every_seconds=1e-3),
    )
    short = replace(half, train=replace(half.train, steps=3))
    for output, status in together(short, [machine(name) for name in first]):
        assert status == 0, output
    ends = [name for name in stored(s3) if name.startswith("checkpoints/step-00000003")]
    assert {name.rpartition("/")[2] for name in ends} >= {
        "rank-00000.safetensors", "rank-00001.safetensors", "state.json",
    }  # fmt: skip
    Shared.of(machine("c")).remove(FINISHED)
    for output, status in together(half, [machine("c"), machine("d")]):
        assert status == 0, output
    Shared.of(machine("e")).pull(FINISHED)
    ours, theirs = weights(machine("e")), weights(undisturbed)
    assert all(torch.allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-4) for name in theirs)
