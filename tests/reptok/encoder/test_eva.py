"""DINOv3's architecture at a tiny size: rotary positions, [cls] and four storage tokens."""

import json

import pytest
import torch
from timm import create_model

from reptok.configs import EncoderConfig
from reptok.dimensions import encoder_dimensions
from reptok.encoder.ssl import build_encoder
from reptok.encoder.vit import Architecture, load_vit, save_vit

SIZES = {"embed_dim": 32, "depth": 3, "num_heads": 2, "patch_size": 8, "img_size": 32, "num_reg_tokens": 4}
NAME = "vit_small_patch16_dinov3"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A timm folder with random weights; timm's own are so near zero that no row would know of another."""
    torch.manual_seed(0)
    vit = create_model(NAME, num_classes=0, **SIZES)
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    folder = tmp_path_factory.mktemp("dinov3")
    save_vit(vit, Architecture(name=NAME, model_args=SIZES), folder)
    return folder


@pytest.fixture
def images():
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def encoder(folder, **changes):
    return build_encoder(EncoderConfig(name="folder", path=str(folder), image_size=32, **changes))


@pytest.mark.parametrize(("token", "num_tokens"), [("cls", 1), ("cls", 3), ("reg", 1), ("reg", 4)])
@pytest.mark.parametrize("image_size", [32, 48])
def test_tokens_are_the_rows_of_timms_forward_pass(folder, images, token, num_tokens, image_size):
    found = build_encoder(
        EncoderConfig(
            name="folder", path=str(folder), image_size=image_size, token=token, num_tokens=num_tokens
        )
    )
    first = 0 if token == "cls" else 1
    plain = found.vit.forward_features(found.preprocess(images))[:, first : first + num_tokens]
    torch.testing.assert_close(found(images), plain, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(found.frozen(images), plain, atol=2e-6, rtol=1e-5)


def test_the_place_of_a_patch_matters(folder, images):
    found = encoder(folder)
    with torch.no_grad():
        assert (found(images) - found(images.flip(-1))).abs().max() > 1e-2


def test_only_the_embedding_trains_and_its_gradient_is_that_of_the_cls_token(folder, images):
    found, weight = encoder(folder), torch.randn(3, 1, 32)
    assert [name for name, p in found.named_parameters() if p.requires_grad] == ["embedding"]
    (found(images) * weight).sum().backward()
    vit = found.vit
    vit.cls_token.requires_grad_(True)
    (vit.forward_features(found.preprocess(images))[:, :1] * weight).sum().backward()
    torch.testing.assert_close(found.embedding.grad, vit.cls_token.grad[0], rtol=1e-4, atol=1e-5)


def test_training_the_embedding_moves_the_token_to_a_target_and_leaves_the_frozen_one(folder, images):
    found = encoder(folder)
    frozen = found.frozen(images)
    target = frozen + 0.1 * torch.randn(1, 1, 32, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.Adam([found.embedding], lr=3e-2)
    losses = []
    for _ in range(30):
        loss = (found(images) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert torch.equal(found.frozen(images), frozen)


def test_a_folder_comes_back_as_it_was_and_says_its_sizes(folder, tmp_path, images):
    vit, architecture = load_vit(folder, 32)
    save_vit(vit, architecture, tmp_path)
    again, _ = load_vit(tmp_path, 32)
    assert all(
        torch.equal(a, b) for a, b in zip(vit.state_dict().values(), again.state_dict().values(), strict=True)
    )
    assert encoder_dimensions(folder) == encoder_dimensions(tmp_path)
    assert encoder_dimensions(folder).rows == 5 and encoder_dimensions(folder).patch_size == 8


def test_rotations_that_differ_by_block_are_refused(folder, tmp_path):
    save_vit(load_vit(folder, 32)[0], Architecture(name=NAME, model_args=SIZES), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["model_args"]["rope_type"] = "mixed"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="rope_type cannot be 'mixed'"):
        load_vit(tmp_path, 32)
