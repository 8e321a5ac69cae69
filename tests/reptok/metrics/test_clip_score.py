import json

import open_clip
import pytest
import torch
from safetensors.torch import save_file
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


@pytest.mark.parametrize("quick", [True, False])
def test_weights_of_quickgelu_are_scored_with_it(quick, small_clip, tmp_path):
    """The same weights give other scores with another activation: the folder's configuration says which."""
    clip, _ = small_clip
    torch.manual_seed(0)
    model = open_clip.CLIP(**clip.CONFIG, quick_gelu=quick).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)  # of weights as small as fresh ones both are nearly linear
    save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors")
    pixels = torch.from_numpy(clip.picture("red", 7)).permute(2, 0, 1)[None]
    mean, std = (torch.tensor(values).view(3, 1, 1)
                 for values in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))  # fmt: skip
    tokens = open_clip.SimpleTokenizer(context_length=8)(["a blue square"])
    with torch.no_grad():
        image = model.encode_image((pixels / 255 - mean) / std, normalize=True)
        expected = float(image @ model.encode_text(tokens, normalize=True).T)

    def found(quick):
        config = {"model_cfg": {**clip.CONFIG, "quick_gelu": quick}}
        (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
        return float(ClipScore.from_folder(tmp_path).cosine(pixels.float() / 127.5 - 1, ["a blue square"]))

    assert found(quick) == pytest.approx(expected, abs=1e-5)
    assert abs(found(not quick) - expected) > 5e-4
