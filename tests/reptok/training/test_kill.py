"""kill -9 in the middle of the loop: the resumed training ends with the bits of an undisturbed one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = Path(__file__).parents[2] / "fixtures" / "killed.py"
STEPS = 8


def killed_and_whole(kind, kills, trainings, tiny_models, small_dataset, folder):
    data = trainings.write_data(folder / "data", small_dataset, tiny_models)
    out = folder / "out"
    command = [sys.executable, str(SCRIPT), str(tiny_models), str(data), str(out), kind, "0", str(kills)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    whole = trainings.Training(kind, tiny_models, data).run(STEPS).state
    for number in range(kills):
        place = out / f"{number:02d}"
        final = load_file(place / "final.safetensors")
        assert all(torch.equal(final[name], tensor) for name, tensor in whole.tensors().items()), number
        assert json.loads((place / "history.json").read_text()) == whole.history
        read = [n for step in range(STEPS) for n in json.loads((place / f"read-{step}.json").read_text())]
        assert [sorted(read[e * 11 : e * 11 + 11]) for e in range(2)] == [list(range(11))] * 2
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tokenizer", "text"])
def test_killed_at_25_moments(kind, trainings, tiny_models, small_dataset, tmp_path):
    kills = killed_and_whole(kind, 25, trainings, tiny_models, small_dataset, tmp_path)
    assert sum(kill["killed"] for kill in kills) >= 23
    assert {kill["at"] for kill in kills} == set(range(STEPS))
    assert all(kill["resumed"] >= kill["at"] - 2 for kill in kills), "an attempt began too early"
    assert any(kill["resumed"] > 0 for kill in kills)


def test_killed_at_a_few_moments(trainings, tiny_models, small_dataset, tmp_path):
    kills = killed_and_whole("class", 2, trainings, tiny_models, small_dataset, tmp_path)
    assert sum(kill["killed"] for kill in kills) >= 1
