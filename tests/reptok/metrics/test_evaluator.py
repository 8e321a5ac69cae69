import pytest
import torch

from reptok.metrics.evaluator import ReconstructionEvaluator
from reptok.metrics.features import EncoderFeatures


def mean_colours(images):
    return images.mean((2, 3))


def test_every_image_weighs_the_same_whatever_the_batches():
    originals = torch.rand(7, 3, 16, 16) * 2 - 1
    images = originals + torch.linspace(0.05, 0.5, 7).view(7, 1, 1, 1) * torch.randn(originals.shape)
    scores = []
    for sizes in ([7], [4, 3], [1] * 7):
        evaluator = ReconstructionEvaluator()
        for image, original in zip(images.split(sizes), originals.split(sizes), strict=True):
            evaluator.add(image, original)
        scores.append(dict(evaluator.run()))
    assert scores[1] == pytest.approx(scores[0], rel=1e-5)
    assert scores[2] == pytest.approx(scores[0], rel=1e-5)


def test_perfect_images_have_no_frechet_distance_and_the_metric_is_not_called_fid():
    extractor = EncoderFeatures(mean_colours, "mean colours")
    originals = torch.rand(20, 3, 16, 16) * 2 - 1
    evaluator = ReconstructionEvaluator([extractor])
    evaluator.add(originals, originals)
    scores = dict(evaluator.run({"vit": extractor(originals)}))
    assert scores["ssim"] == pytest.approx(1.0, abs=1e-6)
    assert scores["fd_vit"] == pytest.approx(0.0, abs=1e-9)
    assert "fid" not in scores


def test_an_empty_evaluation_says_so():
    with pytest.raises(ValueError, match="no image"):
        dict(ReconstructionEvaluator().run())
