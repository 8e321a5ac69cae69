"""A profiled CPU training, opened: the trace holds the steps, the table their products, the snapshot who
held memory."""

import gzip
import json
from dataclasses import replace

import pytest
import torch

from reptok.training.config import ProfileConfig
from reptok.training.profiling import Profiler

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory, trainings, small_dataset, tiny_models):
    return trainings.write_data(tmp_path_factory.mktemp("data"), small_dataset, tiny_models)


class Published:
    def __init__(self):
        self.files = []

    def file(self, path, folder):
        assert path.parent.as_posix().endswith(folder)
        self.files.append(path)


def profiled(training, config, folder):
    published = Published()
    profiler = Profiler(config, folder, CPU, published)
    training.run(8, watch=lambda at, phase: profiler.at(at) if phase == "data" else None)
    profiler.close()
    return published.files


@pytest.mark.slow
def test_a_window_holds_its_steps_and_changes_no_bit(trainings, tiny_models, data, tmp_path):
    plain = trainings.Training("tokenizer", tiny_models, data).run(8)
    training = trainings.Training("tokenizer", tiny_models, data)
    config = ProfileConfig(first=2, every=4, windows=2, steps=2, memory=True)
    published = profiled(training, config, tmp_path)
    assert all(torch.equal(a, plain.state.tensors()[n]) for n, a in training.state.tensors().items())
    assert [path.relative_to(tmp_path).as_posix() for path in published] == [
        f"steps_{window}/{name}"
        for window in ("0000002_0000003", "0000006_0000007")
        for name in ("trace.json.gz", "operations.txt", "memory.json")
    ]
    events = json.loads(gzip.decompress(published[0].read_bytes()))["traceEvents"]
    for label in ("forward", "backward", "optimizer"):
        ranges = [e for e in events if e.get("name") == label and e.get("cat") == "user_annotation"]
        assert len(ranges) == 2, label
    table = published[1].read_text()
    assert (
        "aten::mm" in table and len(table.splitlines()) > 40
    )  # the costliest operations, whichever they are
    memory = json.loads(published[2].read_text())
    assert memory["peak_bytes"] == max(held for _, held in memory["timeline"]) > 0
    assert memory["peak_bytes"] >= sum(holder["bytes"] for holder in memory["holders"])
    modules = {holder["module"].rpartition("_")[0] for holder in memory["holders"]}
    assert {"SwiGLU", "CosineAttention"} & modules or "Linear" in modules
    assert any("reptok/" in holder["function"] for holder in memory["holders"])


def test_what_is_held_is_attributed_to_the_function_that_made_it(tmp_path):
    def keep():
        return torch.zeros(250_000)

    def drop():
        torch.ones(100_000)

    published = Published()
    config = ProfileConfig(first=0, every=5, steps=1, memory=True)
    profiler = Profiler(config, tmp_path, CPU, published)
    profiler.at(0)
    kept = keep()
    for _ in range(3):
        drop()
    profiler.close()
    memory = json.loads(published.files[-1].read_text())
    held = [(holder["bytes"], holder["function"].rpartition(" ")[2]) for holder in memory["holders"]]
    assert held == [(kept.nbytes, "keep"), (400_000, "drop")]
    assert memory["peak_bytes"] == kept.nbytes + 400_000
    assert memory["timeline"][-1][1] == kept.nbytes


@pytest.mark.parametrize(
    ("config", "begun"),
    [(ProfileConfig(), []), (ProfileConfig(first=1, every=3), [1]),
     (ProfileConfig(first=1, every=3, windows=9), [1, 4, 7])],
)  # fmt: skip
def test_which_steps_begin_a_window(config, begun):
    assert [step for step in range(10) if config.begins(step)] == begun


def test_windows_that_overlap_are_refused():
    with pytest.raises(ValueError, match=r"train\.profile\.every 2 is less than the 3 steps"):
        replace(ProfileConfig(), every=2)
