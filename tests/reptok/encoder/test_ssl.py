import open_clip
import pytest
import torch
from timm import create_model

from reptok.configs import EncoderConfig
from reptok.encoder.clip import CLIP_MEAN, convert_tower
from reptok.encoder.rows import PlainTower
from reptok.encoder.ssl import SSLEncoder, build_encoder
from reptok.encoder.tower import input_embeddings
from reptok.encoder.vit import Architecture, dinov2, load_vit, save_vit

token_rows = PlainTower().token_rows


def debug(**changes):
    return build_encoder(EncoderConfig(name="random_vitdebug8_reg", image_size=32, **changes))


@pytest.fixture
def images():
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize(("token", "num_tokens"), [("cls", 1), ("cls", 3), ("reg", 1), ("reg", 4)])
def test_tokens_are_the_rows_of_the_plain_forward_pass(images, token, num_tokens):
    encoder = debug(token=token, num_tokens=num_tokens)
    first = 0 if token == "cls" else 1
    plain = encoder.vit.forward_features(encoder.preprocess(images))[:, first : first + num_tokens]
    torch.testing.assert_close(encoder(images), plain, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(encoder.frozen(images), plain, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("positions", [False, True])
def test_rows_beyond_the_encoders_own_are_further_cls_rows(images, positions):
    """As if the network had been built with so many registers that start as copies of [cls]."""
    torch.manual_seed(0)
    sizes = {"embed_dim": 32, "depth": 3, "num_heads": 2, "img_size": 32, "patch_size": 8}
    vit = create_model("vit_base_patch16_224", **sizes, no_embed_class=not positions).eval()
    rows = torch.randn(4, 32)
    wide = create_model("vit_base_patch16_224", **sizes, no_embed_class=not positions, reg_tokens=3).eval()
    state = vit.state_dict() | {"cls_token": rows[None, :1], "reg_token": rows[None, 1:]}
    if positions:
        place = vit.pos_embed[:, :1]
        state["pos_embed"] = torch.cat([place, place.expand(-1, 3, -1), vit.pos_embed[:, 1:]], dim=1)
    wide.load_state_dict(state)
    expected = wide.forward_features(images)[:, :4]
    torch.testing.assert_close(token_rows(vit, images, rows, 0), expected, atol=2e-6, rtol=1e-5)


def test_further_rows_differ_and_are_held_to_the_frozen_cls(images):
    encoder = debug(num_tokens=16)
    assert encoder.embedding.shape == (16, 32) and torch.equal(
        encoder.embedding[:5], debug(num_tokens=5).embedding
    )
    tokens, frozen = encoder(images), encoder.frozen(images)
    assert torch.equal(frozen[:, :5], debug(num_tokens=5).frozen(images))
    assert torch.equal(frozen[:, 5:], frozen[:, :1].expand(-1, 11, -1))
    apart = torch.cdist(tokens, tokens) + torch.eye(16) * 9
    assert apart.min() > 1e-5 and torch.equal(debug(num_tokens=16)(images), tokens)


def test_a_family_that_counts_its_rows_takes_no_further_ones():
    vit = create_model("vit_small_patch16_dinov3", embed_dim=32, depth=1, num_heads=2, img_size=32)
    with pytest.raises(ValueError, match="more than the encoder's 5 rows"):
        SSLEncoder(EncoderConfig(num_tokens=6, image_size=32), vit, Architecture(name="dinov3"))


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_the_pruned_gradient_equals_plain_autograd(images, depth):
    torch.manual_seed(0)
    vit = dinov2(32, depth, 2, patch_size=8, image_size=32).build().double().requires_grad_(False)
    for p in vit.parameters():
        p.add_(torch.randn_like(p) * 0.2)
    images, weight = images.double(), torch.randn(3, 32).double()
    embedding = input_embeddings(vit)[:1].clone().requires_grad_()
    pruned = token_rows(vit, images, embedding, 0)[:, 0]
    (pruned * weight).sum().backward()
    vit.cls_token.requires_grad_(True)
    plain = vit.forward_features(images)[:, 0]
    (plain * weight).sum().backward()
    torch.testing.assert_close(pruned, plain)
    torch.testing.assert_close(embedding.grad, vit.cls_token.grad[0], rtol=1e-9, atol=1e-12)


def test_the_pruned_gradient_in_float32(images):
    encoder = debug()
    weight = torch.randn(3, 1, 32)
    (encoder(images) * weight).sum().backward()
    vit = encoder.vit
    vit.cls_token.requires_grad_(True)
    (vit.forward_features(encoder.preprocess(images))[:, :1] * weight).sum().backward()
    error = (encoder.embedding.grad - vit.cls_token.grad[0]).norm() / vit.cls_token.grad.norm()
    assert error < 1e-5


def test_only_the_embedding_receives_gradient(images):
    encoder = debug()
    encoder(images).sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is not None] == ["embedding"]
    assert not any(p.requires_grad for p in debug(trainable="nothing").parameters())


def test_everything_trains_without_an_idle_parameter_and_the_target_stays(images):
    encoder = debug(trainable="everything")
    before = encoder.frozen(images)
    encoder(images).sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in encoder.parameters())
    with torch.no_grad():
        for p in encoder.parameters():
            if p.requires_grad:
                p.add_(1.0)
    assert torch.equal(encoder.frozen(images), before)
    assert not torch.allclose(encoder(images), before)


def test_adapting_the_embedding_moves_the_token_and_not_the_target(images):
    encoder = debug()
    before = encoder.frozen(images)
    with torch.no_grad():
        encoder.embedding.add_(1.0)
    assert torch.equal(encoder.frozen(images), before)
    assert not torch.allclose(encoder(images), before)
    assert torch.equal(encoder.features(images), before[:, 0])


def test_random_encoders_are_the_same_every_time():
    assert all(torch.equal(a, b) for a, b in zip(debug().parameters(), debug().parameters(), strict=True))


def test_a_folder_round_trip_keeps_weights_and_resamples_positions(tmp_path):
    architecture = dinov2(32, 2, 2, patch_size=8, image_size=32)
    vit = architecture.build().half().float()
    save_vit(vit, architecture, tmp_path)
    again, _ = load_vit(tmp_path, 32)
    assert all(torch.equal(a, b) for a, b in zip(vit.parameters(), again.parameters(), strict=True))
    assert load_vit(tmp_path, 64)[0].pos_embed.shape == (1, 64, 32)
    assert create_model(f"local-dir:{tmp_path}", pretrained=True).num_features == 32


def test_mae_positions_include_the_cls_token(images):
    torch.manual_seed(0)
    vit = create_model(
        "vit_base_patch16_224", embed_dim=32, depth=2, num_heads=2, img_size=32, patch_size=8, num_classes=0
    )
    rows = token_rows(vit, images, input_embeddings(vit)[:1], 0)
    torch.testing.assert_close(rows, vit.forward_features(images)[:, :1], atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("quick", [True, False])
def test_clip_in_timm_is_clip_in_open_clip(quick):
    torch.manual_seed(0)
    tower = open_clip.model._build_vision_tower(
        16, {"layers": 2, "width": 64, "head_width": 32, "patch_size": 8, "image_size": 32}, quick_gelu=quick
    ).eval()
    vit, architecture = convert_tower(tower)
    x = torch.randn(2, 3, 32, 32)
    rows = token_rows(vit, x, input_embeddings(vit)[:1], 0)[:, 0]
    torch.testing.assert_close(rows @ tower.proj, tower(x), atol=1e-5, rtol=1e-4)
    assert architecture.mean == CLIP_MEAN


def test_what_a_user_can_get_wrong(tmp_path):
    with pytest.raises(ValueError, match="unknown encoder 'dino'"):
        build_encoder(EncoderConfig(name="dino"))
    with pytest.raises(ValueError, match=r"encoder\.path must name one"):
        build_encoder(EncoderConfig(name="folder"))
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        build_encoder(EncoderConfig(name="folder", path=str(tmp_path)))
    with pytest.raises(ValueError, match="no register"):
        SSLEncoder(
            EncoderConfig(token="reg"), dinov2(32, 1, 2, registers=0).build(), Architecture(name="plain")
        )
    with pytest.raises(ValueError, match=r"encoder\.trainable"):
        EncoderConfig(trainable="some")
    with pytest.raises(ValueError, match="multiple of its patch size"):
        architecture = dinov2(32, 1, 2, patch_size=8, image_size=32)
        save_vit(architecture.build(), architecture, tmp_path)
        load_vit(tmp_path, 30)
