"""Mixing tokens as written-out sums is the perceptron on the transposed input, in few kernels."""

import pytest
import torch
from torch import nn

from reptok.generator.mixer import TokenMLP, _Sums


def transposed(mlp: TokenMLP, x: torch.Tensor) -> torch.Tensor:
    return mlp.down(mlp.act(mlp.up(x.transpose(1, 2)))).transpose(1, 2)


def as_sums(mlp: TokenMLP, x: torch.Tensor) -> torch.Tensor:
    return _Sums.apply(x, mlp.up.weight, mlp.up.bias, mlp.down.weight, mlp.down.bias)


def values(function, mlp, x, direction) -> list[torch.Tensor]:
    y = function(mlp, x)
    return [y, *torch.autograd.grad(y, [x, *mlp.parameters()], direction)]


@pytest.mark.parametrize("tokens", [2, 3, 6])
@pytest.mark.parametrize("function", [as_sums, lambda mlp, x: mlp(x)], ids=["sums", "products"])
def test_both_forms_are_the_perceptron_over_tokens(tokens, function):
    torch.manual_seed(tokens)
    mlp, x = TokenMLP(tokens, 2 * tokens), torch.randn(5, tokens, 48, requires_grad=True)
    direction = torch.randn_like(x)
    found, expected = (values(f, mlp, x, direction) for f in (function, transposed))
    for one, other in zip(found, expected, strict=True):
        assert float((one - other).norm() / other.norm()) < 1e-6


def test_the_sums_have_the_gradient_of_their_function():
    mlp = TokenMLP(3, 4).double()
    x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(_Sums.apply, (x, *(nn.Parameter(p) for p in mlp.parameters())))


@pytest.mark.slow
def test_the_compiler_makes_few_kernels_of_the_sums():
    """Left to autograd, each gradient of a small weight would be a kernel of its own: 45 for 3 tokens."""
    from torch._inductor import metrics

    mlp, x = TokenMLP(3, 6), torch.randn(8, 3, 64, requires_grad=True)
    metrics.reset()
    values(torch.compile(as_sums), mlp, x, torch.randn_like(x))
    assert 2 <= metrics.generated_kernel_count <= 12
