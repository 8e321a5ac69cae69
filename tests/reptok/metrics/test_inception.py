import pytest
import torch
from safetensors.torch import save_file
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from reptok.metrics.inception import InceptionFeatures


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The architecture with weights that no training made, offsets of the last layer among them."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("inception") / "weights.safetensors"
    with pytest.MonkeyPatch.context() as patch:  # its constructor wants a file, this test makes one
        patch.setattr(torch, "load", lambda *a, **k: None)
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *a: None)
        network = FeatureExtractorInceptionV3("fid", ["2048"], feature_extractor_weights_path="none")
    save_file(network.state_dict(), path)
    return path


def test_it_sees_what_sfid_and_the_score_need(weights):
    network = InceptionFeatures(weights)
    pixels = torch.randint(0, 256, (2, 3, 299, 299), dtype=torch.uint8)
    found = network.look(pixels)
    layers, x = network.network, (pixels.float() - 128) / 128  # of 299 pixels nothing is resized
    stem = ["Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1", "Conv2d_3b_1x1", "Conv2d_4a_3x3"]
    for name in (*stem, "MaxPool_2", *(f"Mixed_{part}" for part in ("5b", "5c", "5d", "6a", "6b", "6c"))):
        x = getattr(layers, name)(x)
    branch = layers.Mixed_6d.branch1x1(x)
    spatial = found["spatial"].reshape(2, 17, 17, 7)
    assert branch.std() > 0
    for place in ((0, 3, 16, 5), (1, 16, 0, 6)):
        image, row, column, channel = place
        assert spatial[place] == pytest.approx(float(branch[image, channel, row, column]), rel=1e-5)
    for name in ("Mixed_6d", "Mixed_6e", "Mixed_7a", "Mixed_7b", "Mixed_7c", "AvgPool"):
        x = getattr(layers, name)(x)
    torch.testing.assert_close(found["pooled"], x.flatten(1))
    torch.testing.assert_close(found["logits"], x.flatten(1) @ layers.fc.weight.T)
    assert layers.fc.bias.abs().max() > 0, "or the offset could not be told"


def test_features_of_images_are_those_of_their_truncated_pixels(weights):
    network = InceptionFeatures(weights)
    pixels = torch.randint(1, 255, (1, 3, 64, 64), dtype=torch.uint8)
    images = (pixels.float() + 0.6) / 127.5 - 1  # rounding would give the next value
    torch.testing.assert_close(network(images), network.look(pixels)["pooled"])
