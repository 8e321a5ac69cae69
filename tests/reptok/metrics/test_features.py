import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2.functional import resize

from reptok.metrics.features import Dinov2Features, EncoderFeatures, load_foreign_weights
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


def test_dinov2_sees_pictures_as_its_recipe_resizes_them():
    """To 224 pixels with a bicubic filter wide enough for what shrinks: torchvision's is another's code."""
    seen = Dinov2Features(lambda images: images.flatten(1), "pixels", "dinov2")
    torch.manual_seed(0)
    for side in (300, 64):
        pixels = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8)
        found = (seen.look(pixels)["pooled"].reshape(2, 3, 224, 224) + 1) * 127.5
        expected = resize(pixels, [224, 224], interpolation=InterpolationMode.BICUBIC, antialias=True)
        difference = (found - expected).abs()
        assert difference.max() < 2.1 and difference.mean() < 0.05
        plain = resize(pixels, [224, 224], interpolation=InterpolationMode.BILINEAR, antialias=True)
        assert (found - plain).abs().mean() > 5


def test_dinov2s_table_of_positions_is_stretched_to_its_224_pixels(tiny_models):
    network = Dinov2Features.of(tiny_models / "encoder")
    pixels = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    assert network.name == "dinov2"
    alone = EncoderFeatures.from_folder(tiny_models / "encoder", side=224)
    large = np.array(Image.fromarray(pixels[0].permute(1, 2, 0).numpy()).resize((224, 224), Image.BICUBIC))
    expected = alone(torch.from_numpy(large).permute(2, 0, 1)[None] / 127.5 - 1)
    torch.testing.assert_close(network.look(pixels)["pooled"], expected)
