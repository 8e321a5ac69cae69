"""The encode_latents stage: aligned with the dataset, equal to the networks, the same bytes after a kill."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipelines.dag.tally import ShardError
from pipelines.encoding.device import ComputeConfig
from pipelines.encoding.latents import EncodeLatents as EncodeLatentsOp
from pipelines.stages.dataset import dataset_rows, dataset_shards, image_batches
from pipelines.stages.encode_latents import EncodeLatents, EncodeLatentsConfig
from reptok.autoencoder import Autoencoder, LatentSpec
from reptok.configs import AutoencoderConfig, EncoderConfig
from reptok.data.blocks import iterate_blocks, unpack_keys
from reptok.data.loader import TokenizerData
from reptok.data.transforms import to_float
from reptok.data.verify import verify


@pytest.fixture
def config(tiny_models):
    return EncodeLatentsConfig(
        vae=AutoencoderConfig(path=str(tiny_models / "autoencoder")),
        encoder=EncoderConfig(name="folder", path=str(tiny_models / "encoder"), image_size=32),
        compute=ComputeConfig(batch_size=4),
    )


def stored(artifact, shard):
    with artifact.open(f"{shard}.tar") as file:
        return list(iterate_blocks(file))


def test_latents_are_those_of_the_networks_in_the_datasets_order(dataset, config, run_stage):
    latents, stats = run_stage(EncodeLatents(config), {"dataset": dataset})
    assert (stats["rows_in"], stats["rows_out"]) == (20, 20)
    assert verify(latents.local_path(), dataset.local_path()).faults == []
    op = EncodeLatentsOp(config.vae, config.encoder, config.compute)
    op.setup()
    for shard in dataset_shards(dataset):
        blocks = stored(latents, shard.name)
        keys, images = (
            next(image_batches(dataset, shard.name, 32, 1000)) if dataset_rows(dataset, shard) else ([], None)
        )
        assert [key for block in blocks for key in unpack_keys(block["keys"])] == keys
        if images is not None:
            expected = op({"image": images})
            for column, tolerance in (("moments", 2e-3), ("frozen_token", 1e-4)):
                np.testing.assert_allclose(
                    blocks[0][column], expected[column], rtol=tolerance, atol=tolerance
                )


def test_what_training_reads_is_what_the_networks_would_give_online(dataset, config, run_stage):
    """Of the image as the loader gives it, mirrored or not: one crop for pixels, moments and frozen token."""
    latents, _ = run_stage(EncodeLatents(config), {"dataset": dataset})
    data = TokenizerData(dataset.local_path(), latents.local_path())
    samples = np.arange(sum(data.rows))
    op = EncodeLatentsOp(config.vae, config.encoder, config.compute)
    op.setup()
    for flipped in (np.zeros(len(samples), bool), np.ones(len(samples), bool), samples % 2 == 0):
        batch = data.read(samples, flipped)
        with torch.inference_mode():
            moments = op.autoencoder.encode_moments(to_float(batch.images)).numpy()
            token = op.ssl.frozen(to_float(batch.images)).numpy()
        half = np.finfo(np.float16)
        np.testing.assert_allclose(batch.moments.numpy(), moments, rtol=half.eps, atol=half.tiny)
        np.testing.assert_allclose(batch.frozen_token.numpy(), token, rtol=1e-4, atol=1e-5)


def test_spec_tells_which_vae_made_the_latents(dataset, config, run_stage):
    latents, _ = run_stage(EncodeLatents(config), {"dataset": dataset})
    spec = LatentSpec(**latents.read_json("latent_spec.json"))
    spec.check(Autoencoder(config.vae).spec)
    assert (spec.image_size, spec.channels, spec.downsample) == (32, 4, 8)
    assert (spec.dtype, spec.crop, spec.flip) == ("float16", "center", True)
    with pytest.raises(ValueError, match="flip False is not True"):
        replace(spec, flip=False).check(Autoencoder(config.vae).spec)
    other = Autoencoder(AutoencoderConfig(path=config.vae.path, scale=0.5)).spec
    with pytest.raises(ValueError, match="Rerun encode_latents"):
        spec.check(other)


def test_models_may_come_from_artifacts(dataset, config, tiny_models, make_artifact, run_stage, digests):
    models = {
        kind: make_artifact(kind, lambda out, folder=folder: out.publish_folder(tiny_models / folder))
        for kind, folder in (("vae", "autoencoder"), ("encoder", "encoder"))
    }
    elsewhere = EncodeLatentsConfig(
        vae=AutoencoderConfig(path="artifact:vae"),
        encoder=EncoderConfig(name="folder", path="artifact:encoder", image_size=32),
        compute=config.compute,
    )
    stage = EncodeLatents(elsewhere)
    assert stage.inputs == ("dataset", "vae", "encoder")
    from_artifacts, _ = run_stage(stage, {"dataset": dataset, **models}, "a")
    from_paths, _ = run_stage(EncodeLatents(config), {"dataset": dataset}, "b")
    tars = {name: digest for name, digest in digests(from_paths).items() if name.endswith(".tar")}
    assert {name: digests(from_artifacts)[name] for name in tars} == tars


def test_resumed_work_has_the_bytes_of_undisturbed_work(dataset, config, run_stage, digests, tmp_path):
    reference, _ = run_stage(EncodeLatents(config), {"dataset": dataset}, "reference")
    again, _ = run_stage(EncodeLatents(config), {"dataset": dataset}, "again")
    assert digests(again) == digests(reference)
    for record in sorted((tmp_path / "again" / "_scratch" / "shards" / "done").iterdir())[1:]:
        record.unlink()
    (tmp_path / "again" / "train-00001.tar").write_bytes(b"half a file")
    resumed, stats = run_stage(EncodeLatents(config), {"dataset": dataset}, "again")
    assert digests(resumed) == digests(reference)
    assert stats["rows_out"] == 20


def test_missing_weights_folder_is_named_before_anything_runs(dataset, config, run_stage):
    config = EncodeLatentsConfig(vae=AutoencoderConfig(path="./zoo/none"), encoder=config.encoder)
    with pytest.raises(FileNotFoundError, match=r"vae\.path: there is no folder '\./zoo/none'"):
        run_stage(EncodeLatents(config), {"dataset": dataset})


def test_hub_that_cannot_be_reached_is_said_before_any_worker_starts(dataset, config, run_stage, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    config = EncodeLatentsConfig(vae=AutoencoderConfig(path="nobody/no-vae"), encoder=config.encoder)
    with pytest.raises(OSError, match=r"vae\.path=nobody/no-vae means a model of the hub"):
        run_stage(EncodeLatents(config), {"dataset": dataset})


def test_damaged_dataset_shard_is_named(dataset, config, run_stage):
    path = dataset.local_path("train-00001.tar")
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(ShardError, match=r"train-00001\.tar is truncated"):
        run_stage(EncodeLatents(config), {"dataset": dataset})


def test_unknown_schema_is_refused(dataset, config, run_stage):
    path = dataset.local_path("index.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 99}))
    with pytest.raises(ValueError, match="schema version 99, expected 1"):
        run_stage(EncodeLatents(config), {"dataset": dataset})
