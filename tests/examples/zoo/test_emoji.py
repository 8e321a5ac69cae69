"""The emoji as the recipes take them, and the recipe of their text encoder."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from torch.nn import functional as F
from transformers import AutoTokenizer, CLIPTextModel

from examples.emoji.compose import plain
from examples.emoji.pictures import load
from examples.emoji.scene import draw as picture_of
from examples.zoo.autoencoder import psnr, reconstruct
from examples.zoo.crops import CropPool
from examples.zoo.emoji import MEASURED, captioned, draw, known_scenes, measured_scenes
from examples.zoo.emoji_text import train_emoji_text_encoder
from examples.zoo.encoder import class_tokens, measure_encoder
from examples.zoo.recipes import EmojiEncoderRecipe, EmojiTextEncoderRecipe
from reptok.encoder.vit import load_vit

WEIGHTS = Path(__file__).parents[3] / "zoo" / "emoji"


def test_training_sees_every_known_emoji_plain_and_scenes_of_them():
    known = [one for one in load() if not one.held_out]
    scenes = known_scenes(2, seed=3)
    assert len(scenes) == 2 * len(known)
    assert [scene.items[0].emoji for scene in scenes[: len(known)]] == known
    assert {scene.view for scene in scenes[: len(known)]} == {"plain"}
    assert {scene.view for scene in scenes[len(known) :]} == {"composed"}
    assert not any(scene.held_out for scene in scenes)


def test_held_out_pools_show_what_training_never_does_each_emoji_in_turn():
    pool, again, other = (draw("val", 2, seed, size=16) for seed in (5, 5, 6))
    unknown = [one for one in load() if one.held_out]
    assert pool.subjects == len(unknown) and len(pool) == 2 * len(unknown)
    assert pool.labels.tolist() == [*range(len(unknown))] * 2
    assert torch.equal(pool.pixels, again.pixels) and not torch.equal(pool.pixels, other.pixels)
    corners = pool.pixels[: len(unknown), :, 0, 0]
    assert (corners == 255).all(
        1
    ).float().mean() > 0.95  # plain: white, but for pictures that fill their square
    grounds = pool.pixels[len(unknown) :, :, 0, 0]
    assert (grounds == 255).all(1).float().mean() < 0.4


def test_measured_scenes_are_new_and_of_their_kind():
    seen = {scene.caption for scene in known_scenes(3, seed=0)}
    for kind, reason in (("new", ""), ("combination", "combination"), ("emoji", "emoji")):
        scenes = measured_scenes(kind, seed=1)
        assert len(scenes) == MEASURED and {scene.held_out for scene in scenes} == {reason}
        assert len([scene for scene in scenes if scene.caption in seen]) < MEASURED / 50


def test_pictures_and_captions_belong_together():
    scenes = measured_scenes("new", seed=2)[:20]
    pool, captions = captioned(scenes, size=32)
    assert isinstance(pool, CropPool) and captions == [scene.caption for scene in scenes]
    for pixels, scene in zip(pool.pixels, scenes, strict=True):
        assert (torch.from_numpy(picture_of(scene, 32)).permute(2, 0, 1) == pixels).all()


def test_the_autoencoder_in_the_repository_keeps_held_out_emoji():
    model = AutoencoderKL.from_pretrained(WEIGHTS / "autoencoder", torch_dtype=torch.float32).eval()
    pool, _ = captioned(plain([one for one in load() if one.held_out]))
    images = pool.images(slice(None))
    assert psnr(images, reconstruct(model, images)).mean() > 24


@pytest.mark.slow
def test_the_encoder_in_the_repository_holds_the_view():
    """What a linear map of the class token gives of new scenes at 16 x 16 pixels: as its card says."""
    vit = load_vit(WEIGHTS / "encoder", 64)[0].eval()
    pool, _ = captioned(known_scenes(2, seed=9)[-1000:])
    images = pool.images(slice(None))
    with torch.no_grad():
        known = torch.cat([class_tokens(vit, images), torch.ones(len(images), 1)], 1)
    small = F.adaptive_avg_pool2d(images, 16).flatten(1)
    solution = torch.linalg.lstsq(known[:800], small[:800]).solution
    assert (known[800:] @ solution - small[800:]).square().mean() < 0.03
    recipe = EmojiEncoderRecipe(bank_per_subject=3, queries_per_subject=2)
    assert 0.2 < measure_encoder(WEIGHTS / "encoder", recipe, draw, "val")["knn"] < 0.6


@pytest.mark.slow
def test_captions_find_their_pictures_by_the_text_encoder_in_the_repository():
    """By a linear map that is fitted here; among 64 pictures, chance is 1.6 %."""
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS / "text_encoder")
    model = CLIPTextModel.from_pretrained(WEIGHTS / "text_encoder", dtype=torch.float32).eval()
    vit = load_vit(WEIGHTS / "encoder", 64)[0].eval()
    pool, texts = captioned(known_scenes(2, seed=7)[-1256:])
    with torch.no_grad():
        read = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        said = model(read["input_ids"], read["attention_mask"]).pooler_output
        looks = class_tokens(vit, pool.images(slice(None)))
    looks = (looks - looks.mean(0)) / looks.std(0)
    fit = torch.linalg.lstsq(said[:1000], looks[:1000]).solution
    found = F.normalize(said[1000:1256] @ fit, dim=1).split(64)
    shown = F.normalize(looks[1000:1256], dim=1).split(64)
    right = [(a @ b.T).argmax(1) == torch.arange(64) for a, b in zip(found, shown, strict=True)]
    assert torch.cat(right).float().mean() > 0.3


def test_the_text_encoders_recipe_learns_and_saves_what_it_measured(tmp_path):
    recipe = EmojiTextEncoderRecipe(
        pictures_per_emoji=1, width=32, heads=2, layers=1, steps=60, batch_size=48, warmup_steps=5
    )
    logged = []
    stats = train_emoji_text_encoder(
        recipe, WEIGHTS / "encoder", tmp_path / "saved", tmp_path / "scratch", lambda f, i: logged.append(f)
    )
    assert logged[0]["train/loss"] > logged[-2]["train/loss"]
    assert set(stats) == {"retrieval_new", "retrieval_combination", "retrieval_emoji"}
    assert all(0 <= value <= 1 for value in stats.values())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert tokenizer.tokenize("a red apple")[-1] in ("apple", "<unk>") and tokenizer.unk_token == "<unk>"
    saved = CLIPTextModel.from_pretrained(tmp_path / "saved", dtype=torch.float32)
    assert saved.config.vocab_size == len(tokenizer) > 500


@pytest.mark.parametrize("folder", ["autoencoder", "encoder", "text_encoder"])
def test_no_network_of_the_family_is_larger_than_ten_megabytes(folder):
    assert 1e5 < sum(file.stat().st_size for file in (WEIGHTS / folder).iterdir()) < 10e6
