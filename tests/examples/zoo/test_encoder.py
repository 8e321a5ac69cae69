"""The encoder's views, its distillation and the weights in the repository."""

from pathlib import Path

import torch

from examples.photographs.subjects import SUBJECTS
from examples.zoo.crops import CropPool
from examples.zoo.encoder import (
    Distilled,
    class_tokens,
    colour_histogram,
    colour_statistics,
    measure_encoder,
    random_views,
    same_subject,
)
from examples.zoo.recipes import EncoderRecipe

WEIGHTS = Path(__file__).parents[3] / "zoo" / "encoder"


def test_a_view_without_change_is_the_image_or_its_mirror():
    config = EncoderRecipe(smallest_view=1.0, colour_jitter=0.0, image_size=8)
    images = torch.rand(6, 3, 8, 8) * 2 - 1
    views = random_views(images, config, torch.Generator().manual_seed(0))
    for image, view in zip(images, views, strict=True):
        assert min((view - image).abs().max(), (view - image.flip(-1)).abs().max()) < 1e-5


def test_a_view_is_a_part_of_the_image():
    ramp = torch.linspace(-1, 1, 96).expand(4, 3, 96, 96)
    config = EncoderRecipe(smallest_view=0.5, colour_jitter=0.0)
    views = random_views(ramp, config, torch.Generator().manual_seed(1))
    spans = (views[..., -1] - views[..., 0])[:, 0, 0].abs() / 2
    assert views.shape == (4, 3, 64, 64)
    assert ((spans > 0.45) & (spans < 1.0)).all()


def test_the_second_crop_shows_the_same_photograph():
    chosen = torch.arange(200)
    labels = torch.arange(len(SUBJECTS)).repeat(20)
    pool = CropPool(torch.zeros(len(labels), 3, 1, 1, dtype=torch.uint8), labels)
    others = same_subject(chosen, pool, torch.Generator().manual_seed(0))
    assert torch.equal(others % len(SUBJECTS), chosen % len(SUBJECTS))
    assert (others != chosen).float().mean() > 0.8
    assert others.min() >= 0 and others.max() < 20 * len(SUBJECTS)


def test_prototypes_are_compared_by_angle():
    config = EncoderRecipe(width=24, depth=2, heads=2, prototypes=8)
    torch.manual_seed(0)
    model = Distilled(config).eval()
    views = torch.rand(3, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        token, _ = model(views)
        model.prototypes[:3] = 7 * token
        _, cosines = model(views)
    torch.testing.assert_close(token, class_tokens(model.vit, views))
    torch.testing.assert_close(cosines[:, :3].diagonal(), torch.ones(3))
    assert cosines.abs().max() <= 1 + 1e-6


def test_colours_of_a_plain_image():
    plain = torch.full((1, 3, 4, 4), -1.0)
    assert colour_statistics(plain)[0].tolist() == [-1, -1, -1, 0, 0, 0]
    assert colour_histogram(plain)[0].view(3, 8).tolist() == [[1, 0, 0, 0, 0, 0, 0, 0]] * 3


def test_the_weights_in_the_repository_know_the_subjects():
    stats = measure_encoder(WEIGHTS, EncoderRecipe(bank_per_subject=30, queries_per_subject=10))
    assert stats["knn"] >= stats["knn_untrained"] + 0.10
    assert stats["knn"] >= stats["knn_colours"] + 0.10
    assert (WEIGHTS / "model.safetensors").stat().st_size <= 5e6
