"""A small published world for whatever reads trained models: a dataset, a tokenizer and generators."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.dag.artifact import Artifact
from pipelines.dag.workspace import Workspace

SUBJECTS = ("brick", "grass", "sky")
SIZE = 32


@pytest.fixture(scope="session")
def small_world(tmp_path_factory: pytest.TempPathFactory, tiny_models: Path) -> dict[str, Artifact]:
    """Artifacts "dataset", "tokenizer", "generator" (reads text), "class_generator" and "free_generator".

    Their weights are random; the last is told nothing.
    """
    return publish_small_world(tmp_path_factory.mktemp("world"), tiny_models)


def publish_small_world(root: Path, tiny_models: Path) -> dict[str, Artifact]:
    """Publish the world under `root` and return its artifacts by name."""
    from pipelines.stages.dataset import DatasetShardWriter, write_index
    from reptok.configs import AutoencoderConfig, DecoderConfig, EncoderConfig, GeneratorConfig, RepTokConfig
    from reptok.generator.generator import TokenGenerator
    from reptok.pretrained import save_generator, save_tokenizer
    from reptok.tokenizer import RepTok

    def publish(kind: str, write: Callable[[Workspace], Any], name: str = "", **manifest: Any) -> Artifact:
        out = Workspace(str(root / kind / (name or "0" * 16)), name or "0" * 16)
        write(out)
        defaults = {"stage": f"make_{kind}", "config": {"seed": 0}, "inputs": {}, "stats": {}, "seconds": 3.0}
        out.publish({**defaults, "git_commit": "abc", **manifest})
        return Artifact(kind, out.fingerprint, out.url)

    def dataset(out: Workspace) -> None:
        names = ("train-00000", "val-00000")
        for name in names:
            with DatasetShardWriter(out, name) as writer:
                for sample, split in samples():
                    if name.startswith(split):
                        writer.add(sample)
        write_index(out, names, SIZE)

    def tokenizer(out: Workspace) -> None:
        torch.manual_seed(0)
        config = RepTokConfig(
            encoder=EncoderConfig(name="folder", path=str(tiny_models / "encoder"), image_size=SIZE),
            decoder=DecoderConfig(width=32, depth=1, heads=2, patch_size=2, latent_size=4, mapping_width=16,
                                  mapping_ff=32, ff=64, token_dim=32),
            autoencoder=AutoencoderConfig(path=str(tiny_models / "autoencoder")),
        )  # fmt: skip
        model = RepTok(config)
        for parameter in model.trainable_parameters():  # past the zeros of a fresh decoder
            parameter.data += 0.05 * torch.randn(parameter.shape)
        save_tokenizer(model, out.local_path())
        out.write_json("history.json", [{"step": 10 * i, "train/loss": 1 / (i + 1)} for i in range(9)])

    def generator(condition: str) -> Callable[[Workspace], None]:
        def write(out: Workspace) -> None:
            torch.manual_seed(1)
            config = GeneratorConfig(token_dim=32, condition=condition, num_classes=3, text_dim=32,
                                     dim=32, depth=1, heads=2)  # fmt: skip
            model = TokenGenerator(config)
            for parameter in model.parameters():  # past the zeros of a fresh one, which heeds no condition
                parameter.data += 0.1 * torch.randn(parameter.shape)
            save_generator(model, out.local_path())

        return write

    rows = {"rows_in": 50.0, "rows_out": 48.0, "dropped_http_404": 2.0}
    data = publish("dataset", dataset, stats=rows)
    parents = {"dataset": data.fingerprint}
    made = {"dataset": data, "tokenizer": publish("tokenizer", tokenizer, inputs=parents)}
    made["generator"] = publish("generator", generator("text"), inputs=parents)
    made["class_generator"] = publish("generator", generator("class"), "1" * 16, inputs=parents)
    made["free_generator"] = publish("generator", generator("none"), "2" * 16, inputs=parents)
    return made


def samples():
    """48 images of three coloured textures, every fourth for validation."""
    from reptok.data.images import encode_jpeg
    from reptok.data.shards import Sample

    random = np.random.default_rng(0)
    for number in range(48):
        subject = number % 3
        image = random.integers(0, 60, (SIZE, SIZE, 3), dtype=np.uint8)
        image[..., subject] += np.uint8(120 + 2 * number)
        info = {"label": subject, "subject": SUBJECTS[subject], "width": SIZE, "height": SIZE}
        caption = f"a photo of <b>{SUBJECTS[subject]}</b>"
        split = "val" if number % 4 == 0 else "train"
        yield Sample(f"{number:012d}", encode_jpeg(image), caption, info), split
