import json
import shutil
import threading

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from reptok.training.checkpoint import Checkpointer
from reptok.training.checkpoint_files import FACTS, checkpoints
from reptok.training.config import OptimConfig
from reptok.training.state import TrainState


def trained(steps: int, width: int = 3) -> TrainState:
    torch.manual_seed(0)
    model = nn.Linear(width, 2)
    state = TrainState(model, OptimConfig(lr=0.1), 0.9)
    for step in range(steps):
        model(torch.ones(1, width)).square().sum().backward()
        state.optimizer.step(1.0)
        state.optimizer.zero_grad()
        state.ema.update(step)
        state.step, state.samples, state.sums = step + 1, 4 * (step + 1), {"loss": 0.5}
    return state


TENSORS = "rank-00000.safetensors"


def save_checkpoint(folder, state):
    writer = Checkpointer(folder, state)
    writer.save()
    writer.wait()
    return folder / f"step-{state.step:08d}"


def load_newest(folder, state):
    return Checkpointer(folder, state).load_newest()


def equal(a: TrainState, b: TrainState) -> bool:
    left, right = a.tensors(), b.tensors()
    same = left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
    return same and a.counters() == b.counters()


def test_what_is_saved_is_what_is_loaded(tmp_path):
    state, fresh = trained(3), trained(0)
    save_checkpoint(tmp_path, state)
    assert load_newest(tmp_path, fresh) == tmp_path / "step-00000003"
    assert equal(state, fresh)
    assert {"optimizer/steps/weight", "optimizer/exp_avg/weight", "ema/bias", "weights/bias"} <= set(
        fresh.tensors()
    )


def test_nothing_to_resume_leaves_the_state_alone(tmp_path):
    fresh = trained(0)
    assert load_newest(tmp_path / "absent", fresh) is None
    assert equal(fresh, trained(0))


@pytest.mark.parametrize("name", [TENSORS, FACTS])
def test_a_truncated_checkpoint_is_never_loaded_and_the_one_before_is(tmp_path, name):
    """Truncated at every tenth byte."""
    save_checkpoint(tmp_path, trained(1))
    newest = save_checkpoint(tmp_path, trained(2))
    whole = (newest / name).read_bytes()
    for length in range(0, len(whole), 10):
        (newest / name).write_bytes(whole[:length])
        fresh = trained(0)
        assert load_newest(tmp_path, fresh) == tmp_path / "step-00000001"
        assert equal(fresh, trained(1))


@pytest.mark.parametrize("name", [TENSORS, FACTS])
def test_a_flipped_bit_is_found(tmp_path, name):
    place = save_checkpoint(tmp_path, trained(2))
    whole = (place / name).read_bytes()
    for position in range(0, len(whole), 37):
        (place / name).write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        assert load_newest(tmp_path, trained(0)) is None, position


def test_what_is_saved_is_the_moment_of_the_call_whatever_the_training_does_meanwhile(tmp_path, monkeypatch):
    go_on = threading.Event()
    write = Checkpointer._write
    monkeypatch.setattr(Checkpointer, "_write", lambda self, *facts: (go_on.wait(), write(self, *facts)))
    state, fresh = trained(2), trained(0)
    writer = Checkpointer(tmp_path, state)
    writer.save()
    for tensor in state.tensors().values():
        tensor.zero_()
    state.step, state.sums = 7, {}
    assert load_newest(tmp_path, fresh) is None
    go_on.set()
    writer.wait()
    load_newest(tmp_path, fresh)
    assert equal(fresh, trained(2))


def test_a_full_disk_is_told_and_the_checkpoint_before_stays(tmp_path, monkeypatch):
    state, fresh = trained(1), trained(0)
    writer = Checkpointer(tmp_path, state)
    writer.save()
    writer.wait()

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    state.step = 2
    monkeypatch.setattr("reptok.training.checkpoint.save_file", full)
    writer.save()
    with pytest.raises(OSError, match=r"No space left.*make room in"):
        writer.wait()
    assert load_newest(tmp_path, fresh) == tmp_path / "step-00000001"
    assert equal(fresh, trained(1))


def test_nothing_in_a_checkpoint_is_a_pickle(tmp_path):
    place = save_checkpoint(tmp_path, trained(1))
    assert sorted(path.name for path in place.iterdir()) == [TENSORS, FACTS]
    json.loads((place / FACTS).read_text())
    load_file(place / TENSORS)


def test_the_newest_two_are_kept_and_drafts_are_swept(tmp_path):
    (tmp_path / ".draft-dead").mkdir()
    for steps in (1, 2, 3):
        save_checkpoint(tmp_path, trained(steps))
    assert [place.name for place in checkpoints(tmp_path)] == ["step-00000003", "step-00000002"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]


def test_a_broken_checkpoint_of_the_same_step_is_replaced(tmp_path):
    place = save_checkpoint(tmp_path, trained(2))
    shutil.copy(place / FACTS, place / TENSORS)
    save_checkpoint(tmp_path, trained(2))
    fresh = trained(0)
    load_newest(tmp_path, fresh)
    assert equal(fresh, trained(2))


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    save_checkpoint(tmp_path, trained(1))
    with pytest.raises(ValueError, match=r"another model: .*weight"):
        load_newest(tmp_path, trained(0, width=4))
