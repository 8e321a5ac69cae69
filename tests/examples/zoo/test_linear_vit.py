"""A ViT that starts as a linear code."""

import pytest
import torch

from examples.zoo.emoji import draw
from examples.zoo.encoder import Distilled, class_tokens
from examples.zoo.linear_vit import start_linear_vit
from examples.zoo.recipes import EmojiEncoderRecipe, EncoderRecipe


def code_error(vit, images):
    """Share of the variance of 8 x 8 small pictures that no linear map of the class token gives."""
    with torch.no_grad():
        tokens = class_tokens(vit, images)
    small = torch.nn.functional.adaptive_avg_pool2d(images, 8).flatten(1)
    known = torch.cat([tokens, torch.ones(len(tokens), 1)], 1)
    fit, rest = slice(0, 900), slice(900, None)
    solution = torch.linalg.lstsq(known[fit], small[fit]).solution
    error = (known[rest] @ solution - small[rest]).square().mean()
    return (error / (small[rest] - small[fit].mean(0)).square().mean()).item()


def test_its_token_holds_the_view_where_a_random_start_holds_little():
    torch.manual_seed(0)
    model = Distilled(EmojiEncoderRecipe(width=128, heads=4, depth=4))
    pool = draw("train", 1, 0)
    images = pool.images(torch.randperm(len(pool), generator=torch.Generator().manual_seed(1))[:1200])
    before = code_error(model.vit.eval(), images)
    start_linear_vit(model.vit, model.preprocess(images[:600]))
    after = code_error(model.vit, images)
    assert after < 0.15 and after < before / 2


def test_a_network_that_has_no_room_for_its_patches_is_refused():
    narrow = Distilled(EncoderRecipe(width=48, heads=4, depth=4))
    with pytest.raises(ValueError, match="no linear start for 16 patches in 48 places"):
        start_linear_vit(narrow.vit, torch.zeros(2, 3, 64, 64))
