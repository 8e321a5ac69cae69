import math

import pytest
import torch

from reptok.flow import euler, heun, solve
from reptok.flow.guidance import guide, is_guided
from reptok.flow.solver import ADAPTIVE, time_grid


def test_one_euler_step_on_a_straight_field_is_exact():
    noise, data = torch.randn(4, 3), torch.randn(4, 3)
    torch.testing.assert_close(euler(lambda x, t: data - noise, noise, 1), data)


def test_reverse_walks_from_data_to_noise():
    noise, data = torch.randn(4, 3), torch.randn(4, 3)
    torch.testing.assert_close(euler(lambda x, t: data - noise, data, 3, reverse=True), noise)
    torch.testing.assert_close(heun(lambda x, t: data - noise, data, 3, reverse=True), noise)


@pytest.mark.parametrize(("solver", "steps", "tolerance"), [("euler", 2000, 2e-3), ("heun", 40, 1e-3)])
def test_the_field_3t2_integrates_to_one(solver, steps, tolerance):
    x = solve(solver, lambda x, t: 3 * t[:, None] ** 2, torch.zeros(2, 1), steps)
    torch.testing.assert_close(x, torch.ones(2, 1), atol=tolerance, rtol=0)


@pytest.mark.parametrize("solver", ADAPTIVE)
def test_adaptive_solvers_integrate_growth_to_e(solver):
    x = solve(solver, lambda x, t: x, torch.ones(2, 1), 1)
    torch.testing.assert_close(x, torch.full((2, 1), math.e), atol=1e-3, rtol=0)


def test_orders_of_convergence():
    def error(method, steps):
        return abs(float(method(lambda x, t: x, torch.ones(1, 1).double(), steps)) - math.e)

    assert 1.8 < error(euler, 40) / error(euler, 80) < 2.2
    assert 3.6 < error(heun, 40) / error(heun, 80) < 4.4


def test_times_run_from_noise_to_data():
    seen = []
    euler(lambda x, t: seen.append(float(t[0])) or torch.zeros_like(x), torch.zeros(1, 1), 4)
    assert seen == [0.0, 0.25, 0.5, 0.75]
    with pytest.raises(ValueError, match="at least 1"):
        time_grid(0)
    with pytest.raises(ValueError, match="unknown solver"):
        solve("rk9", lambda x, t: x, torch.zeros(1, 1), 1)


def test_guidance_at_scale_one_is_the_conditional_prediction():
    c, u = torch.randn(3, 2), torch.randn(3, 2)
    torch.testing.assert_close(guide(c, u, 1.0), c)
    torch.testing.assert_close(guide(c, u, 0.0), u)


@pytest.mark.parametrize(("steps", "first", "last"), [(10, 3, 9), (25, 8, 22), (50, 16, 45), (100, 31, 90)])
def test_guided_steps_follow_the_float32_boundary(steps, first, last):
    guided = [i for i, t in enumerate(time_grid(steps)[:-1]) if is_guided(t, (0.3, 0.9))]
    assert guided == list(range(first, last + 1))


def test_an_end_equal_in_float32_belongs_to_the_interval():
    assert is_guided(torch.tensor(0.7), (0.7, 0.9))  # float32(0.7) lies below the double 0.7
    assert is_guided(0.1, None)
