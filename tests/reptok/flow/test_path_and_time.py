import pytest
import torch

from reptok.flow import TrigonometricSchedule, noise_from_seeds
from reptok.flow.loss import velocity_loss
from reptok.flow.noise import expand_seed
from reptok.flow.path import LINEAR_PATH, PATHS
from reptok.flow.time import sample_logit_normal, sample_uniform, segment_midpoints


@pytest.fixture(params=sorted(PATHS))
def path(request):
    return PATHS[request.param]


def test_path_starts_at_noise_and_ends_at_data(path):
    noise, data = torch.randn(3, 4, 2), torch.randn(3, 4, 2)
    torch.testing.assert_close(path.sample(noise, data, torch.zeros(3)).x_t, noise)
    torch.testing.assert_close(path.sample(noise, data, torch.ones(3)).x_t, data)


def test_velocity_is_the_time_derivative_of_the_path(path):
    noise, data = torch.randn(5, 2).double(), torch.randn(5, 2).double()
    t = torch.rand(5).double().requires_grad_()
    sample = path.sample(noise, data, t)
    derivative = torch.stack(
        [torch.autograd.grad(sample.x_t[:, j].sum(), t, retain_graph=True)[0] for j in range(2)], dim=1
    )
    torch.testing.assert_close(derivative, sample.v_t)


def test_a_velocity_points_at_its_data_and_away_from_its_noise(path):
    noise, data, t = torch.randn(6, 3), torch.randn(6, 3), torch.rand(6)
    sample = path.sample(noise, data, t)
    torch.testing.assert_close(path.data_from_velocity(sample.x_t, sample.v_t, t), data)
    torch.testing.assert_close(path.noise_from_velocity(sample.x_t, sample.v_t, t), noise)


def test_score_is_the_gradient_of_the_log_density(path):
    """Data at one point makes x_t normal around alpha * data, whose score is known."""
    data, t = torch.full((6, 2), 1.5).double(), torch.linspace(0.1, 0.9, 6).double()
    x = torch.randn(6, 2).double().requires_grad_()
    schedule = path.schedule(t[:, None])
    (-((x - schedule.alpha * data) ** 2) / (2 * schedule.sigma**2)).sum().backward()
    noise = (x.detach() - schedule.alpha * data) / schedule.sigma
    sample = path.sample(noise, data, t)
    score = path.score_from_velocity(sample.x_t, sample.v_t, t)
    torch.testing.assert_close(score, x.grad)
    torch.testing.assert_close(path.velocity_from_score(sample.x_t, score, t), sample.v_t)


def test_the_trigonometric_path_keeps_the_variance():
    schedule = TrigonometricSchedule()(torch.linspace(0, 1, 9))
    torch.testing.assert_close(schedule.alpha**2 + schedule.sigma**2, torch.ones(9))


def test_path_refuses_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match="differ in shape"):
        LINEAR_PATH.sample(torch.zeros(2, 3), torch.zeros(2, 1), torch.zeros(2))
    with pytest.raises(ValueError, match="one time per sample"):
        LINEAR_PATH.sample(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(1))


def test_loss_is_per_sample_mean_squared_error():
    predicted = torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]]])
    torch.testing.assert_close(velocity_loss(predicted, torch.zeros(2, 1, 2)), torch.tensor([2.5, 0.0]))


def test_logit_normal_has_its_median_at_the_sigmoid_of_loc():
    generator = torch.Generator().manual_seed(0)
    t = sample_logit_normal(20_000, loc=0.5, scale=2.0, generator=generator)
    assert t.min() > 0 and t.max() < 1
    assert abs(float(t.median()) - float(torch.sigmoid(torch.tensor(0.5)))) < 0.02
    assert abs(float(sample_uniform(20_000, generator=generator).mean()) - 0.5) < 0.01


def test_segment_midpoints():
    assert segment_midpoints(4).tolist() == [0.125, 0.375, 0.625, 0.875]


def test_noise_belongs_to_its_seed_and_not_to_its_batch():
    together = noise_from_seeds([3, 8, 5], (4, 2))
    torch.testing.assert_close(together[1:2], noise_from_seeds([8], (4, 2)), rtol=0, atol=0)
    assert not torch.equal(together[1:2], noise_from_seeds([8], (4, 2), stream=1))
    assert expand_seed(7, 3) == [7, 8, 9]
    with pytest.raises(ValueError, match="2 seeds were given for 3 samples"):
        expand_seed([1, 2], 3)
