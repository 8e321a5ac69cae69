import pytest
import torch

from reptok.training.ema import EMA


def test_the_average_has_its_closed_form():
    """With constant decay d and weights w_1 ... w_n: d^n w_0 + (1 - d) sum d^(n - k) w_k."""
    weight, decay = torch.zeros(1, dtype=torch.float64), 0.9
    ema = EMA({"w": weight}, decay)
    late = 10_000  # far beyond the warm-up of the decay
    for k in range(1, 6):
        weight.fill_(float(k))
        ema.update(late + k)
    expected = (1 - decay) * sum(decay ** (5 - k) * k for k in range(1, 6))
    assert float(ema.weights["w"]) == pytest.approx(expected, rel=1e-12)


def test_the_decay_warms_up():
    ema = EMA({"w": torch.zeros(1)}, 0.999)
    assert ema.decay_at(0) == 0.1
    assert ema.decay_at(90) == 0.91
    assert ema.decay_at(10**6) == 0.999


def test_applied_exchanges_and_restores():
    weight = torch.tensor([1.0])
    ema = EMA({"w": weight}, 0.5)
    weight.fill_(3.0)
    with ema.applied():
        assert weight.item() == 1.0
        assert ema.weights["w"].item() == 3.0
    assert (weight.item(), ema.weights["w"].item()) == (3.0, 1.0)


def test_a_decay_of_one_is_refused():
    with pytest.raises(ValueError, match="ema_decay"):
        EMA({}, 1.0)
