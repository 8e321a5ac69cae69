"""The generator's space, where the truth is known: tokens of a chosen covariance."""

import pytest
import torch

from reptok.generator.token_stats import FLOOR, TokenStats


@pytest.fixture
def tokens():
    """Two strong directions, some weak ones and one that never changes, turned so that no number is alone."""
    torch.manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))
    return (torch.randn(20_000, 6).double() * torch.tensor([9, 3, 1, 0.5, 0.3, 0.0])) @ basis.T + 4


def statistics(tokens):
    return tokens.mean(0).float(), tokens.std(0).float(), tokens.T.cov()


def test_whitened_tokens_have_equal_variance_in_all_directions_that_vary(tokens):
    stats = TokenStats(6, whitened=True)
    stats.set(*statistics(tokens))
    seen = torch.linalg.eigvalsh(stats.normalize(tokens.float()[:, None])[:, 0].double().T.cov())
    assert seen[0] < 1e-3  # what never changes is not blown up
    # Of a direction with the share s of the mean variance, s / (s + FLOOR) is left.
    z = ((tokens - tokens.mean(0)) / tokens.std(0)).T.cov()
    share = torch.linalg.eigvalsh(z)[1:]  # their mean is 1
    torch.testing.assert_close(seen[1:], share / (share + FLOOR), rtol=1e-3, atol=1e-3)
    assert share[0] < 0.1 and seen[1] > 0.9


def test_there_and_back(tokens):
    stats = TokenStats(6, whitened=True)
    stats.set(*statistics(tokens))
    some = tokens[:50].float()[:, None]
    torch.testing.assert_close(stats.denormalize(stats.normalize(some)), some, rtol=1e-4, atol=1e-4)


def test_the_order_of_directions_and_their_signs_change_nothing(tokens, monkeypatch):
    stats, turned = TokenStats(6, whitened=True), TokenStats(6, whitened=True)
    stats.set(*statistics(tokens))
    solve = torch.linalg.eigh
    monkeypatch.setattr(
        torch.linalg, "eigh", lambda c: (solve(c)[0], solve(c)[1] * torch.tensor([1, -1, 1, -1, -1, 1]))
    )
    turned.set(*statistics(tokens))
    assert torch.equal(stats.whitening, turned.whitening) and torch.equal(stats.colouring, turned.colouring)


def test_data_is_not_rounded_with_the_activations(tokens):
    stats = TokenStats(6, whitened=True)
    stats.set(*statistics(tokens))
    some = tokens[:50].float()[:, None]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = stats.normalize(some)
    assert torch.equal(rounded, stats.normalize(some))


def test_a_covariance_is_asked_for_where_it_is_needed():
    mean, std = torch.zeros(6), torch.ones(6)
    with pytest.raises(ValueError, match=r"generator\.whiten"):
        TokenStats(6, whitened=True).set(mean, std)
    with pytest.raises(ValueError, match=r"generator\.whiten"):
        TokenStats(6).set(mean, std, torch.eye(6))
