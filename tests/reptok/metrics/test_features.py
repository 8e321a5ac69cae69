import pytest
import torch
from safetensors.torch import save_file

from reptok.metrics.features import EncoderFeatures, load_foreign_weights
from reptok.metrics.inception import InceptionFeatures
from reptok.metrics.perceptual import Lpips


def test_encoder_features_see_displayable_images():
    extractor = EncoderFeatures(lambda images: images.amax((2, 3)), "maximum")
    assert extractor(torch.full((1, 3, 4, 4), 7.0)).tolist() == [[1.0, 1.0, 1.0]]


class Hostile:
    def __reduce__(self):
        return print, ("executed",)


def test_a_weights_file_with_code_in_it_executes_nothing(tmp_path, capsys):
    torch.save({"weight": Hostile()}, tmp_path / "weights.pth")
    with pytest.raises(Exception, match="Weights only"):
        load_foreign_weights(tmp_path / "weights.pth")
    assert "executed" not in capsys.readouterr().out


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"inception\.pth"):
        InceptionFeatures(tmp_path / "inception.pth")


def test_lpips_takes_its_backbone_from_the_file(tmp_path):
    pytest.importorskip("lpips", reason="lpips is not installed")
    from torchvision.models import alexnet

    torch.manual_seed(0)
    save_file({k: v for k, v in alexnet().state_dict().items() if k.startswith("features.")},
              tmp_path / "alexnet.safetensors")  # fmt: skip
    images, others = torch.rand(2, 3, 64, 64) * 2 - 1, torch.rand(2, 3, 64, 64) * 2 - 1
    distance = Lpips(tmp_path / "alexnet.safetensors")
    torch.testing.assert_close(distance(images, images), torch.zeros(2))
    assert (distance(images, others) > 0).all()
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="AlexNet"):
        Lpips(tmp_path / "other.safetensors")
