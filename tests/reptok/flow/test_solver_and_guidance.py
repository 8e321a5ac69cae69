import math

import pytest
import torch

from reptok.flow import Euler, EulerMaruyama, Heun, LinearSchedule, Path, TrigonometricSchedule, time_grid
from reptok.flow.guidance import guide, is_guided
from reptok.flow.noise import noise_from_seeds
from reptok.flow.sample import sample
from reptok.flow.solver import ADAPTIVE, SOLVERS, Adaptive, solver_named


@pytest.mark.parametrize("solver", [Euler(), Heun()])
def test_a_straight_field_is_walked_exactly_in_both_directions(solver):
    noise, data = torch.randn(4, 3), torch.randn(4, 3)
    straight = lambda x, t: data - noise  # noqa: E731
    torch.testing.assert_close(solver.solve(straight, noise, time_grid(1)), data)
    torch.testing.assert_close(solver.solve(straight, data, time_grid(3, reverse=True)), noise)


@pytest.mark.parametrize(("solver", "steps", "tolerance"), [(Euler(), 2000, 2e-3), (Heun(), 40, 1e-3)])
def test_the_field_3t2_integrates_to_one(solver, steps, tolerance):
    x = solver.solve(lambda x, t: 3 * t[:, None] ** 2, torch.zeros(2, 1), time_grid(steps))
    torch.testing.assert_close(x, torch.ones(2, 1), atol=tolerance, rtol=0)


@pytest.mark.parametrize("method", ADAPTIVE)
def test_adaptive_solvers_integrate_growth_to_e(method):
    walk = Adaptive(method).solve(
        lambda x, t: x, torch.ones(2, 1), time_grid([0, 0.25, 1]), return_intermediates=True
    )
    exact = torch.tensor([1.0, math.exp(0.25), math.e])[:, None, None].expand(3, 2, 1)
    torch.testing.assert_close(walk, exact, atol=1e-3, rtol=0)


def test_orders_of_convergence():
    def error(solver, steps):
        found = solver.solve(lambda x, t: x, torch.ones(1, 1).double(), time_grid(steps))
        return abs(float(found) - math.e)

    assert 1.8 < error(Euler(), 40) / error(Euler(), 80) < 2.2
    assert 3.6 < error(Heun(), 40) / error(Heun(), 80) < 4.4


def test_times_run_from_noise_to_data():
    seen = []
    Euler().solve(
        lambda x, t: seen.append(float(t[0])) or torch.zeros_like(x), torch.zeros(1, 1), time_grid(4)
    )
    assert seen == [0.0, 0.25, 0.5, 0.75]
    assert time_grid([0.0, 0.5, 1.0], reverse=True) == [1.0, 0.5, 0.0]


@pytest.mark.parametrize("times", [0, [0.5], [0.0, 0.0, 1.0], [0.5, 0.2], [0.0, 1.5], [-0.1, 1.0]])
def test_times_that_make_no_walk_are_refused(times):
    with pytest.raises(ValueError, match="at least"):
        time_grid(times)


def test_an_unknown_solver_is_refused_and_the_known_ones_named():
    with pytest.raises(ValueError, match=r"unknown solver 'rk9'.*euler, heun, sde"):
        solver_named("rk9")
    assert {name: type(solver_named(name)) for name in SOLVERS}["sde"] is EulerMaruyama
    assert solver_named(chosen := Heun()) is chosen


def test_the_walk_holds_every_point():
    walk = Euler().solve(
        lambda x, t: torch.full_like(x, 2.0), torch.zeros(3, 1), time_grid([0, 0.1, 0.6, 1]),
        return_intermediates=True,
    )  # fmt: skip
    torch.testing.assert_close(walk[:, 1, 0], torch.tensor([0.0, 0.2, 1.2, 2.0]))


MEAN, DEVIATION = 1.5, 0.4


def gaussian_velocity(path):
    """The exact velocity from standard noise to a normal distribution."""

    def velocity(x, t):
        w = path.schedule(t[:, None])
        variance = (w.alpha * DEVIATION) ** 2 + w.sigma**2
        excess = x - w.alpha * MEAN
        data = MEAN + w.alpha * DEVIATION**2 / variance * excess
        noise = w.sigma / variance * excess
        return w.d_alpha * data + w.d_sigma * noise

    return velocity


@pytest.mark.parametrize("schedule", [LinearSchedule(), TrigonometricSchedule()])
@pytest.mark.parametrize("diffusion", [0.5, 2.0])
def test_the_stochastic_solver_has_the_marginals_of_the_path(schedule, diffusion):
    torch.manual_seed(0)
    num, steps, path = 20_000, 80, Path(schedule)
    walk = EulerMaruyama(diffusion, path).solve(
        gaussian_velocity(path), torch.randn(num, 1), time_grid(steps),
        step_noise=torch.randn(num, steps, 1), return_intermediates=True,
    )  # fmt: skip
    for number in (steps // 4, steps // 2, steps):
        w = schedule(torch.tensor(number / steps))
        assert float(walk[number].mean()) == pytest.approx(float(w.alpha) * MEAN, abs=0.04)
        exact = math.hypot(float(w.alpha) * DEVIATION, float(w.sigma))
        assert float(walk[number].std()) == pytest.approx(exact, rel=0.06)


def test_without_diffusion_the_stochastic_solver_is_euler():
    start, noise = torch.randn(5, 2), torch.randn(5, 7, 2)
    field = lambda x, t: torch.sin(x) + t[:, None]  # noqa: E731
    found = EulerMaruyama(0.0).solve(field, start, time_grid(7), step_noise=noise)
    torch.testing.assert_close(found, Euler().solve(field, start, time_grid(7)))
    with pytest.raises(ValueError, match="step_noise of shape"):
        EulerMaruyama().solve(field, start, time_grid(7))
    with pytest.raises(ValueError, match="noise to data"):
        EulerMaruyama().solve(field, start, time_grid(7, reverse=True), step_noise=noise)
    with pytest.raises(ValueError, match="at least 0"):
        EulerMaruyama(-1.0)


def test_a_stochastic_sample_depends_on_its_seed_and_not_on_its_batch():
    field = lambda x, t: -x  # noqa: E731
    settings = {"num_steps": 6, "solver": "sde", "stream": 1}

    def walk(seeds):
        return sample(field, noise_from_seeds(seeds, (3,), stream=1), seeds=seeds, **settings)

    together = walk([5, 6, 7])
    torch.testing.assert_close(walk([6]), together[1:2])
    same_start = noise_from_seeds([5, 5], (3,), stream=1)
    other = sample(field, same_start, seeds=[5, 9], **settings)
    torch.testing.assert_close(other[:1], together[:1])
    assert not torch.allclose(other[0], other[1])


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
