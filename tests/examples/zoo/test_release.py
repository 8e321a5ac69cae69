"""What the repository keeps of a run: the same models, rounded to half precision."""

import json

import pytest
import torch
from safetensors import safe_open

from examples.zoo.release import release, to_half
from pipelines.dag.artifact import Artifact
from pipelines.dag.workspace import Workspace
from reptok.configs import AutoencoderConfig, DecoderConfig, EncoderConfig, GeneratorConfig, RepTokConfig
from reptok.generator.generator import TokenGenerator
from reptok.pipeline import RepTokPipeline
from reptok.pretrained import load_pretrained, save_generator, save_pretrained, save_tokenizer
from reptok.tokenizer import RepTok


def published(folder, kind, write):
    out = Workspace(str(folder / kind), kind)
    source = folder / f"{kind}-source"
    write(source)
    out.publish_folder(source)
    out.publish({"stage": "test", "seconds": 75.0})
    return Artifact(kind, kind, out.url)


def test_released_models_are_the_trained_ones_rounded(tiny_models, tmp_path):
    torch.manual_seed(0)
    encoder = EncoderConfig(name="folder", path=str(tiny_models / "encoder"), image_size=32)
    decoder = DecoderConfig(width=32, depth=1, heads=2, token_dim=32, latent_size=4)
    vae = AutoencoderConfig(path=str(tiny_models / "autoencoder"))
    tokenizer = RepTok(RepTokConfig(encoder=encoder, decoder=decoder, autoencoder=vae)).eval()
    generators = [
        TokenGenerator(
            GeneratorConfig(token_dim=32, dim=16, depth=1, condition=condition, num_classes=2)
        ).eval()
        for condition in ("none", "class")
    ]
    pipe = RepTokPipeline(tokenizer, generators[0])

    def model(folder):
        save_pretrained(pipe, folder, card="# the card\n")
        (folder / "report.html").write_text("<p>the report</p>")

    writers = {
        "model": model,
        "dataset": write_index,
        "tokenizer": lambda folder: save_tokenizer(tokenizer, folder),
        "generator": lambda folder: save_generator(generators[0], folder),
        "class_generator": lambda folder: save_generator(generators[1], folder),
    }
    artifacts = {kind: published(tmp_path, kind, write) for kind, write in writers.items()}
    release(artifacts, tmp_path / "zoo", "the command")
    release(artifacts, tmp_path / "part", "the command", "zoo_emoji", whole=False)
    alone = load_pretrained(tmp_path / "part" / "emoji")
    assert (
        alone.generator is None
        and "training pictures of emoji" in (tmp_path / "part/emoji/README.md").read_text()
    )
    ours = tokenizer.trainable_state_dict()
    assert all(
        torch.equal(value, ours[key].half().float())
        for key, value in alone.tokenizer.trainable_state_dict().items()
    )

    card = (tmp_path / "zoo" / "reptok" / "README.md").read_text()
    assert card.startswith("# the card\n") and "`the command`" in card
    assert "1,500 training crops" in card and "tokenizer 1 min 15 s" in card
    assert (tmp_path / "zoo" / "reptok" / "report.html").read_text() == "<p>the report</p>"
    kept = load_pretrained(tmp_path / "zoo" / "reptok")
    for name, weight in pipe.state_dict().items():
        torch.testing.assert_close(kept.state_dict()[name], weight, atol=1e-6, rtol=1e-3)
    with safe_open(tmp_path / "zoo" / "reptok" / "tokenizer" / "model.safetensors", "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F16"}  # noqa: SIM118

    by_class = load_pretrained(tmp_path / "zoo" / "reptok_class")
    picture = by_class(labels=["bee"], num_steps=2, decoder_steps=2, seed=1)[0]
    assert picture.size == (32, 32)
    expected = RepTokPipeline(kept.tokenizer, by_class.generator, class_names=["ant", "bee"])
    assert expected(labels=[1], num_steps=2, decoder_steps=2, seed=1)[0].tobytes() == picture.tobytes()


def write_index(folder):
    folder.mkdir()
    splits = {"train": [{"rows": 1000}, {"rows": 500}], "val": [{"rows": 7}]}
    (folder / "index.json").write_text(json.dumps({"class_names": ["ant", "bee"], "splits": splits}))


def test_a_weight_too_large_for_float16_is_named():
    with pytest.raises(ValueError, match="weight holds values that float16 cannot"):
        to_half({"head.weight": torch.tensor([1.0, 1e6])})
