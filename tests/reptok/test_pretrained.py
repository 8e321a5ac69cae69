import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import reptok
from reptok.configs import (
    LatentTokenizerConfig,
    TextEncoderConfig,
)
from reptok.generator import GeneratorConfig, TokenGenerator
from reptok.latent_tokenizer import LatentTokenizer
from reptok.pipeline import RepTokPipeline, to_pictures
from reptok.pretrained import load_generator, load_pretrained, load_tokenizer, save_pretrained
from reptok.text_encoder import TextEncoder
from tests.fixtures.tiny_tokenizer import tiny_tokenizer

FAST = {"num_steps": 2, "decoder_steps": 2}


def make(tiny_models, condition="text", trainable="cls"):
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer(tiny_models, trainable)
    text = TextEncoder(TextEncoderConfig(path=str(tiny_models / "text_encoder"), max_length=16))
    generator = TokenGenerator(
        GeneratorConfig(
            token_dim=32, dim=16, depth=1, heads=2, condition=condition, num_classes=3, text_dim=text.dim
        )
    )
    with torch.no_grad():
        for p in [*tokenizer.trainable_parameters(), *generator.parameters()]:
            p.add_(torch.randn_like(p) * 0.1)
    is_text = condition == "text"
    names = None if is_text else ["cat", "dog", "fox"]
    return RepTokPipeline(tokenizer, generator, text if is_text else None, names).eval()


@pytest.fixture(scope="module")
def pipe(tiny_models):
    return make(tiny_models)


def test_each_part_takes_its_own_steps(pipe):
    """Three evaluations of the generator and five of the decoder, one a step without guidance."""
    counts = {"generator": 0, "decoder": 0}

    def count(name):
        def hook(*_):
            counts[name] += 1

        return hook

    hooks = [
        pipe.generator.network.register_forward_pre_hook(count("generator")),
        pipe.tokenizer.decoder.register_forward_pre_hook(count("decoder")),
    ]
    pipe("a photo", num_steps=3, decoder_steps=5, cfg_scale=1.0)
    for hook in hooks:
        hook.remove()
    assert counts == {"generator": 3, "decoder": 5}


@pytest.mark.parametrize(("method", "shape"), [("detokenize", (1, 32)), ("reconstruct", (1, 3, 32, 32))])
def test_a_misspelt_keyword_is_refused_by_every_tokenizer(pipe, method, shape):
    latents = LatentTokenizer(LatentTokenizerConfig(image_size=32), autoencoder=pipe.tokenizer.autoencoder)
    for tokenizer in (pipe.tokenizer, latents):
        with pytest.raises(TypeError, match="nmu_steps"):
            getattr(tokenizer, method)(torch.zeros(shape), nmu_steps=3)


@pytest.fixture(scope="module")
def folder(pipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_pretrained(pipe, folder)
    return folder


def same(a, b):
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_save_load_gives_identical_pictures(pipe, folder):
    loaded = load_pretrained(folder)
    wanted = pipe(["a photo", "ca"], num_images=2, seed=3, **FAST)
    assert len(wanted) == 4 and wanted[0].size == (32, 32)
    assert same(wanted, loaded(["a photo", "ca"], num_images=2, seed=3, **FAST))
    assert not same(wanted, loaded(["a photo", "ca"], num_images=2, seed=4, **FAST))


def test_a_saved_model_can_be_saved_again_elsewhere_and_in_place(folder, tmp_path):
    save_pretrained(load_pretrained(folder), tmp_path / "copy", card="# Mine\n")
    save_pretrained(load_pretrained(tmp_path / "copy"), tmp_path / "third", card="# Mine\n")
    save_pretrained(load_pretrained(folder), folder, card="# Mine\n")
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    assert {"config.json", "model.safetensors", "README.md"} <= {name.name for name in names}
    for name in names:  # and so nothing in them says where it lay
        found = {(place / name).read_bytes() for place in (folder, tmp_path / "copy", tmp_path / "third")}
        assert len(found) == 1, name
    assert (tmp_path / "copy" / "README.md").read_text() == "# Mine\n"


def test_the_folder_holds_safetensors_and_text_only(folder):
    kinds = {p.suffix for p in folder.rglob("*") if p.is_file()}
    assert kinds <= {".safetensors", ".json", ".md", ".txt"}
    assert json.loads((folder / "model.json").read_text())["parts"] == [
        "tokenizer",
        "generator",
        "text_encoder",
    ]


def test_the_tokenizer_folder_stands_alone(pipe, folder):
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    assert torch.equal(load_tokenizer(folder / "tokenizer").tokenize(images), pipe.tokenizer.tokenize(images))
    assert load_pretrained(folder / "tokenizer").generator is None


def test_an_encoder_that_trained_whole_keeps_its_original(tiny_models, tmp_path):
    pipe = make(tiny_models, trainable="everything")
    save_pretrained(pipe, tmp_path)
    loaded, images = load_pretrained(tmp_path), torch.rand(2, 3, 32, 32) * 2 - 1
    assert torch.equal(loaded.tokenizer.tokenize(images), pipe.tokenizer.tokenize(images))
    assert torch.equal(loaded.tokenizer.encoder.frozen(images), pipe.tokenizer.encoder.frozen(images))


def test_a_picture_does_not_depend_on_its_batch(pipe):
    together = pipe("a photo", num_images=3, seed=5, **FAST)
    alone = pipe("a photo", num_images=1, seed=6, **FAST)
    assert np.abs(np.array(together[1], int) - np.array(alone[0], int)).max() <= 1
    split = pipe("a photo", num_images=3, seed=5, batch_size=2, **FAST)
    assert max(np.abs(np.array(a, int) - np.array(b, int)).max() for a, b in zip(together, split)) <= 1  # noqa: B905


def test_classes_by_name_and_number(tiny_models):
    pipe = make(tiny_models, condition="class")
    assert same(pipe(labels="dog", **FAST), pipe(labels=1, **FAST))
    assert same(pipe(labels=["dog"], **FAST), pipe(labels=["1"], **FAST))
    with pytest.raises(ValueError, match="unknown class 'cow'; known classes: cat, dog, fox"):
        pipe(labels="cow")
    with pytest.raises(ValueError, match=r"class 3 is outside 0 \.\.\. 2"):
        pipe(labels=3)
    assert same(pipe([1, 0], **FAST), pipe(labels=["dog", "cat"], **FAST))
    with pytest.raises(ValueError, match="unknown class 'a dog'"):
        pipe("a dog")


def test_a_condition_of_the_wrong_kind_is_refused(pipe, tiny_models):
    for wanted in ({}, {"prompt": 1}, {"prompt": []}, {"labels": "a photo"}):
        with pytest.raises(ValueError, match="conditioned on text"):
            pipe(**wanted, **FAST)
    free = make(tiny_models, condition="none")
    for wanted in ({"prompt": "a photo"}, {"labels": 0}):
        with pytest.raises(ValueError, match="unconditional"):
            free(**wanted, **FAST)


def test_pictures_are_clamped_and_rounded():
    levels = torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0]).view(1, 1, 1, 5).expand(1, 3, 1, 5)
    assert np.array(to_pictures(levels)[0])[0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_wrong_files_are_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model\.json is missing"):
        load_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds a tokenizer, not a generator"):
        load_generator(folder / "tokenizer")
    broken = tmp_path / "generator"
    broken.mkdir()
    (broken / "config.json").write_bytes((folder / "generator/config.json").read_bytes())
    state = load_file(folder / "generator/model.safetensors")
    state["stray"] = state.pop("position")
    save_file(state, broken / "model.safetensors")
    with pytest.raises(ValueError, match="missing position; not expected stray"):
        load_generator(broken)


def test_text_states_do_not_depend_on_the_batch(tiny_models):
    encoder = TextEncoder(TextEncoderConfig(path=str(tiny_models / "text_encoder"), max_length=16))
    states, mask = encoder(["a photo", "ca", ""])
    assert states.shape == (*mask.shape, encoder.dim) and mask.dtype == torch.bool
    alone, alone_mask = encoder(["ca"])
    n = int(mask[1].sum())
    assert n == int(alone_mask.sum())
    torch.testing.assert_close(states[1, :n], alone[0], atol=1e-5, rtol=1e-5)
    assert mask[2].any()
    assert not any(p.requires_grad for p in encoder.parameters())
    with pytest.raises(ValueError, match="wrap a single caption"):
        encoder("a photo")
    with pytest.raises(OSError, match="no text encoder of kind 'clip'"):
        TextEncoder(TextEncoderConfig(path=str(tiny_models / "nothing")))


def test_importing_the_package_imports_no_framework():
    code = "import sys, reptok; assert 'torch' not in sys.modules; assert reptok.__version__"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError):
        reptok.nothing  # noqa: B018
