"""The encode_tokens stage: the tokenizer's tokens, aligned with the dataset, and their exact statistics."""

import numpy as np
import pytest
import torch
from safetensors.numpy import load

from pipelines.dag.tally import ShardError
from pipelines.encoding.device import ComputeConfig
from pipelines.stages.dataset import dataset_rows, dataset_shards, image_batches, read_index
from pipelines.stages.encode_tokens import EncodeTokens, EncodeTokensConfig
from reptok.autoencoder import LatentSpec
from reptok.configs import AutoencoderConfig, DecoderConfig, EncoderConfig, RepTokConfig
from reptok.data.blocks import iterate_blocks, unpack_keys
from reptok.data.transforms import flip, to_float
from reptok.data.verify import verify
from reptok.pretrained import load_tokenizer, save_tokenizer
from reptok.tokenizer import RepTok

CONFIG = EncodeTokensConfig(compute=ComputeConfig(batch_size=4))


def build_tokenizer(tiny_models, latent_size=4):
    torch.manual_seed(0)
    tokenizer = RepTok(
        RepTokConfig(
            encoder=EncoderConfig(name="folder", path=str(tiny_models / "encoder"), image_size=32),
            autoencoder=AutoencoderConfig(path=str(tiny_models / "autoencoder")),
            decoder=DecoderConfig(width=32, depth=1, heads=2, latent_size=latent_size, token_dim=32),
        )
    )
    with torch.no_grad():
        tokenizer.encoder.embedding.add_(torch.randn_like(tokenizer.encoder.embedding))
    return tokenizer


@pytest.fixture
def tokenizer(tiny_models, make_artifact):
    return make_artifact(
        "tokenizer", lambda out: save_tokenizer(build_tokenizer(tiny_models), out.local_path())
    )


def stored(artifact, shard):
    with artifact.open(f"{shard}.tar") as file:
        return list(iterate_blocks(file))


def test_tokens_are_the_adapted_tokenizers(dataset, tokenizer, run_stage):
    tokens, stats = run_stage(EncodeTokens(CONFIG), {"dataset": dataset, "tokenizer": tokenizer})
    assert (stats["rows_in"], stats["rows_out"]) == (20, 20)
    assert verify(tokens.local_path(), dataset.local_path()).faults == []
    model = load_tokenizer(tokenizer.local_path())
    for shard in dataset_shards(dataset):
        if not dataset_rows(dataset, shard):
            assert stored(tokens, shard.name) == []
            continue
        keys, images = next(image_batches(dataset, shard.name, 32, 1000))
        (block,) = stored(tokens, shard.name)
        assert unpack_keys(block["keys"]) == keys
        assert block["token"].dtype == np.float32
        assert block["token"].shape == (len(keys), 2, 1, 32)
        pixels = to_float(images)
        for variant, view in enumerate((pixels, flip(pixels))):
            np.testing.assert_allclose(block["token"][:, variant, 0], model.tokenize(view).numpy(), atol=1e-4)
        assert np.abs(block["token"][:, 0, 0] - model.encoder.frozen(pixels)[:, 0].numpy()).max() > 1e-2


def test_statistics_are_those_of_the_train_split(dataset, tokenizer, run_stage):
    tokens, _ = run_stage(EncodeTokens(CONFIG), {"dataset": dataset, "tokenizer": tokenizer})
    shards = [entry.shard for entry in read_index(dataset).splits["train"]]
    train = np.concatenate([block["token"] for shard in shards for block in stored(tokens, shard)]).reshape(
        -1, 32
    )
    stats = load(tokens.read_bytes("token_stats.safetensors"))
    assert stats["mean"].dtype == stats["std"].dtype == np.float32
    np.testing.assert_allclose(stats["mean"], train.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(stats["std"], train.std(0), rtol=1e-4)


def test_same_bytes_after_a_resume(dataset, tokenizer, run_stage, digests, tmp_path):
    inputs = {"dataset": dataset, "tokenizer": tokenizer}
    reference, _ = run_stage(EncodeTokens(CONFIG), inputs, "reference")
    run_stage(EncodeTokens(CONFIG), inputs, "again")
    (tmp_path / "again" / "_scratch" / "shards" / "done" / "000001.json").unlink()
    resumed, _ = run_stage(EncodeTokens(CONFIG), inputs, "again")
    assert digests(resumed) == digests(reference)
    assert not [name for name in digests(resumed) if name.startswith("_scratch")]


def test_latent_spec_travels_with_the_tokens(dataset, tokenizer, run_stage):
    tokens, _ = run_stage(EncodeTokens(CONFIG), {"dataset": dataset, "tokenizer": tokenizer})
    spec = LatentSpec(**tokens.read_json("latent_spec.json"))
    spec.check(LatentSpec(**tokenizer.read_json("latent_spec.json")))
    assert spec.image_size == 32


def test_tokenizer_of_another_image_size_is_refused(dataset, tiny_models, make_artifact, run_stage):
    larger = build_tokenizer(tiny_models, latent_size=8)
    artifact = make_artifact("tokenizer", lambda out: save_tokenizer(larger, out.local_path()))
    with pytest.raises(
        ShardError, match="images are 32 px, but the tokenizer was trained on 64 px; rerun train_tok"
    ):
        run_stage(EncodeTokens(CONFIG), {"dataset": dataset, "tokenizer": artifact})
