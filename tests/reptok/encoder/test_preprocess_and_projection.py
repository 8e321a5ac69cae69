import pytest
import torch

from reptok.encoder.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess, resize_square
from reptok.encoder.preservation import preservation_loss
from reptok.encoder.projection import TokenProjection


def test_a_picture_of_the_right_size_is_only_normalised():
    x = torch.rand(2, 3, 16, 16) * 2 - 1
    mean, std = torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)
    torch.testing.assert_close(Preprocess(16)(x), ((x + 1) / 2 - mean) / std)


def test_whole_factors_are_averaged():
    x = torch.arange(16.0).reshape(1, 1, 4, 4).expand(1, 3, 4, 4)
    expected = torch.tensor([[2.5, 4.5], [10.5, 12.5]])
    torch.testing.assert_close(resize_square(x, 2)[0, 0], expected)


def test_the_crop_is_central_and_a_single_image_is_accepted():
    x = torch.zeros(3, 4, 8)
    x[:, :, 2:6] = 1
    assert torch.equal(resize_square(x, 4), torch.ones(3, 4, 4))


def test_bytes_are_refused():
    with pytest.raises(ValueError, match="float"):
        Preprocess(8)(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


def test_a_zero_initialised_projection_leaves_the_token_unchanged():
    token = torch.randn(2, 1, 5)
    projected = TokenProjection(5, 8)(token)
    assert torch.equal(projected[..., :5], token) and not projected[..., 5:].any()


def test_preservation_measures_direction_and_not_length():
    token = torch.randn(4, 1, 6)
    torch.testing.assert_close(preservation_loss(token, 3 * token), torch.zeros(4), atol=1e-6, rtol=0)
    torch.testing.assert_close(preservation_loss(token, -token), torch.full((4,), 2.0))
    assert preservation_loss(token.bfloat16(), token.bfloat16()).dtype == torch.float32
