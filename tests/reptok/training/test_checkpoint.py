import shutil

import pytest
import torch
from torch import nn

from reptok.training.checkpoint import FACTS, TENSORS, checkpoints, load_newest, save_checkpoint
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
    save_checkpoint(tmp_path, trained(1))
    newest = save_checkpoint(tmp_path, trained(2))
    whole = (newest / name).read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 10)):
        (newest / name).write_bytes(whole[:length])
        fresh = trained(0)
        assert load_newest(tmp_path, fresh) == tmp_path / "step-00000001"
        assert equal(fresh, trained(1))


def test_a_flipped_byte_is_found(tmp_path):
    place = save_checkpoint(tmp_path, trained(2))
    data = bytearray((place / TENSORS).read_bytes())
    data[-3] ^= 1
    (place / TENSORS).write_bytes(data)
    assert load_newest(tmp_path, trained(0)) is None


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
