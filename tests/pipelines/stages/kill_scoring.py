"""Kill sampling and scoring at named points, as `kill_points` does it; called and answering likewise."""

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
from kill_everywhere import child
from kill_points import given, sweep_all

from pipelines.dag.artifact import Artifact
from pipelines.encoding.device import ComputeConfig
from pipelines.evaluation.looking import LookConfig
from pipelines.evaluation.real_images import RealImagesConfig
from pipelines.evaluation.sampling import SampleImagesConfig
from pipelines.stages.look_at_images import LookAtReference, LookAtReferenceConfig, LookAtSamples
from pipelines.stages.sample_images import SampleImages
from pipelines.stages.score_samples import ScoreSamples, ScoreSamplesConfig

SHARDS = {
    "_scratch/shards/plan.json": ("before", "half", "placed"),
    "_scratch/shards/done/000001.json": ("before", "half", "written", "placed"),
    "manifest.json": ("before", "half", "written", "placed"),
}
WRITTEN = ("before", "half", "written", "placed")
FEATURES = {**SHARDS, "features-00001.safetensors": WRITTEN}


def publish_model(folder, models):
    """Write a model of three classes whose samples differ."""
    import torch

    from reptok.configs import AutoencoderConfig, DecoderConfig, EncoderConfig, GeneratorConfig, RepTokConfig
    from reptok.generator import TokenGenerator
    from reptok.pipeline import RepTokPipeline
    from reptok.pretrained import save_pretrained
    from reptok.tokenizer import RepTok

    torch.manual_seed(0)
    config = RepTokConfig(
        encoder=EncoderConfig(name="folder", path=str(models / "encoder"), image_size=32),
        autoencoder=AutoencoderConfig(path=str(models / "autoencoder")),
        decoder=DecoderConfig(width=32, depth=1, heads=2, latent_size=4, token_dim=32),
    )
    tokenizer = RepTok(config)
    generator = TokenGenerator(
        GeneratorConfig(token_dim=32, dim=16, depth=1, condition="class", num_classes=3)
    )
    with torch.no_grad():
        for parameter in (*tokenizer.trainable_parameters(), *generator.parameters()):
            parameter.add_(torch.randn_like(parameter) * 0.1)
    save_pretrained(RepTokPipeline(tokenizer, generator, class_names=["cat", "dog", "cow"]), folder)


def prepare(folder, models):
    """The stages, each on what the one before it publishes undisturbed."""
    for module in ("pretrained", "metrics.score", "metrics.features", "metrics.sample_files"):
        import_module(f"reptok.{module}")  # once, here, and not by every child
    model, real = folder / "model", folder / "real.npz"
    if child(lambda: publish_model(model, models)) != 0:
        raise RuntimeError("no model")
    np.savez(real, np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8))
    look = LookConfig(recipe="encoder", name="vit", folder=str(models / "encoder"), batch_size=3)
    stages = {
        "samples": SampleImages(
            SampleImagesConfig(
                model=str(model), images=8, rows_per_shard=3, guidance=2.0, generator_steps=2,
                decoder_steps=2, compute=ComputeConfig(batch_size=2),
            )
        ),
        "sample_features_vit": LookAtSamples(look),
        "reference_features_vit": LookAtReference(
            LookAtReferenceConfig(look=look, real=RealImagesConfig(path=str(real), rows_per_shard=3))
        ),
        "scores": ScoreSamples(ScoreSamplesConfig(reference="real", networks=("vit",))),
    }  # fmt: skip
    moments = {
        "samples": {
            **SHARDS, "samples-00001.npz": WRITTEN, "samples-00001.jsonl": WRITTEN,
            "index.json": ("before", "half", "placed"),
        },
        "sample_features_vit": FEATURES,
        "reference_features_vit": FEATURES,
        "scores": {"metrics.json": ("before", "half", "placed"), "manifest.json": WRITTEN},
    }  # fmt: skip
    made: dict[str, Artifact] = {}
    for kind, stage in stages.items():
        inputs = {name: made[name] for name in stage.inputs}
        yield stage, inputs, moments[kind]

        def whole(stage=stage, inputs=inputs, kind=kind):
            given(folder, kind, lambda out: stage.run(inputs, out))

        if child(whole) != 0:
            raise RuntimeError(f"no {kind}")
        made[kind] = Artifact(kind, kind, str(folder / kind))


if __name__ == "__main__":
    sweep_all(prepare(Path(sys.argv[1]), Path(sys.argv[2])), Path(sys.argv[1]))
