import pytest
import torch
from torch import nn

from reptok.metrics.clip_score import ClipScore


class TwoColours(nn.Module):
    """Embeds an image as (red, blue) and a text as the colour that it names."""

    def encode_image(self, images):
        return images.mean((2, 3))[:, [0, 2]]

    def encode_text(self, tokens):
        return torch.eye(2)[tokens]


def scorer():
    return ClipScore(TwoColours(), lambda texts: torch.tensor([text == "blue" for text in texts]).long(),
                     8, mean=[0.0, 0.0, 0.0], std=[1.0, 1.0, 1.0])  # fmt: skip


def test_the_score_is_a_hundred_times_the_cosine():
    red = torch.full((1, 3, 16, 16), -1.0)
    red[:, 0] = 1.0
    half = torch.full((1, 3, 16, 16), 1.0)  # red = blue = 1: cosine 1 / sqrt(2) with either word
    scores = scorer()(torch.cat([red, red, half]), ["red", "blue", "blue"])
    torch.testing.assert_close(scores, torch.tensor([100.0, 0.0, 100 / 2**0.5]), atol=1e-3, rtol=0)


def test_every_image_needs_its_text():
    with pytest.raises(ValueError, match="2 images but 1 texts"):
        scorer()(torch.zeros(2, 3, 16, 16), ["red"])


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"clip\.safetensors"):
        ClipScore.from_weights(tmp_path / "clip.safetensors")
