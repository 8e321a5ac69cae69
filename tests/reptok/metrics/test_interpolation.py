import pytest
import torch

from reptok.metrics.interpolation import gradualness


def test_a_straight_even_path_is_perfectly_gradual():
    start, end = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    frames = torch.stack([start.lerp(end, i / 8) for i in range(9)], dim=1)
    result = gradualness(frames)
    torch.testing.assert_close(result.largest_step, torch.full((2,), 1 / 8, dtype=torch.float64))
    torch.testing.assert_close(result.monotone, torch.ones(2, dtype=torch.float64))


def test_a_switch_is_one_step():
    frames = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0]).view(1, 5, 1)
    assert gradualness(frames).largest_step.item() == pytest.approx(1.0)


def test_going_back_is_not_monotone():
    frames = torch.tensor([0.0, 2.0, 1.0, 3.0]).view(1, 4, 1)
    assert gradualness(frames).monotone.item() == pytest.approx(2 / 3)


def test_two_frames_are_no_path():
    with pytest.raises(ValueError, match="at least 3"):
        gradualness(torch.zeros(1, 2, 5))
