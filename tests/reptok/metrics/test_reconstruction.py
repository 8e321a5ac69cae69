import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from reptok.metrics.reconstruction import psnr, ssim


def test_psnr_of_a_constant_offset_is_its_closed_form():
    images = torch.zeros(2, 3, 16, 16)
    offset = images + torch.tensor([0.2, 0.02]).view(2, 1, 1, 1)  # 0.1 and 0.01 on a range of one
    torch.testing.assert_close(psnr(offset, images), torch.tensor([20.0, 40.0], dtype=torch.float64),
                               atol=1e-4, rtol=0)  # fmt: skip


def test_psnr_sees_only_what_a_screen_can_show():
    white = torch.ones(1, 3, 4, 4)
    assert torch.isinf(psnr(white * 3, white)).all()


def test_ssim_equals_scikit_image_on_every_image():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, 3, 24, 32, generator=generator) * 2 - 1
    noisy = (images + 0.3 * torch.randn(images.shape, generator=generator)).clamp(-1, 1)
    expected = [
        structural_similarity(
            ((a + 1) / 2).numpy().astype(np.float64), ((b + 1) / 2).numpy().astype(np.float64),
            channel_axis=0, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
        for a, b in zip(noisy, images, strict=True)]  # fmt: skip
    torch.testing.assert_close(ssim(noisy, images).double(), torch.tensor(expected), atol=1e-5, rtol=0)


def test_ssim_of_an_image_with_itself_is_one():
    image = torch.rand(1, 3, 16, 16) * 2 - 1
    torch.testing.assert_close(ssim(image, image), torch.ones(1), atol=1e-6, rtol=0)


def test_scores_do_not_depend_on_the_batch():
    images, others = torch.rand(4, 3, 16, 16) * 2 - 1, torch.rand(4, 3, 16, 16) * 2 - 1
    alone = torch.cat([ssim(images[i : i + 1], others[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(ssim(images, others), alone)


def test_too_small_and_unequal_images_are_refused():
    with pytest.raises(ValueError, match="at least 11 pixels"):
        ssim(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="one shape"):
        psnr(torch.zeros(1, 3, 8, 8), torch.zeros(2, 3, 8, 8))
