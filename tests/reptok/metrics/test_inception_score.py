import math

import pytest
import torch

from reptok.metrics.inception_score import ClassSums, inception_score


def test_k_one_hots_score_k():
    logits = 1000 * torch.eye(7).repeat(3, 1)
    assert inception_score(logits).value == pytest.approx(7, rel=1e-12)


def test_images_that_all_look_alike_score_one():
    assert inception_score(torch.tensor([[0.3, -1.0, 2.0]]).repeat(11, 1)).value == pytest.approx(
        1, rel=1e-12
    )


def test_two_unsure_images_by_hand():
    """p = (3/4, 1/4) and (1/4, 3/4): the mean is even, and KL = ln 2 - H(1/4)."""
    logits = torch.tensor([[3.0, 1.0], [1.0, 3.0]]).log()
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert inception_score(logits).value == pytest.approx(2 * math.exp(-entropy), rel=1e-6)


def test_groups_are_scored_apart():
    sure = 1000 * torch.eye(4)
    logits = torch.cat([sure, sure[:1].repeat(4, 1)])
    found = inception_score(logits, split=4)
    assert found.value == pytest.approx((4 + 1) / 2)
    assert found.spread == pytest.approx(1.5)
    with pytest.raises(ValueError, match="needs images"):
        inception_score(torch.zeros(0, 4))


def test_images_that_come_in_parts_are_grouped_as_all_at_once():
    logits = 3 * torch.randn(23, 5, generator=torch.Generator().manual_seed(0))
    sums = ClassSums(5, split=6)
    for part in logits.split(4):
        sums.update(part)
    found, log_p = sums.score(), logits.double().log_softmax(1)
    groups = [(g.exp() * (g - g.exp().mean(0).log())).sum(1).mean().exp() for g in log_p.split(6)]
    assert found.value == pytest.approx(float(torch.stack(groups).mean()), rel=1e-12)
    assert found == inception_score(logits, split=6)
