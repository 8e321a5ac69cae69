"""A published model asked over shards: the same pixels whatever batch, shard or worker, and its scores."""

import json

import numpy as np
import pytest
import torch

from pipelines.dag.fingerprint import fingerprint
from pipelines.dag.shards import WorkerResources
from pipelines.encoding.device import ComputeConfig
from pipelines.evaluation.sampling import SampleImagesConfig, read_prompts, rows_of, sample_files
from pipelines.stages.sample_images import SampleImages
from reptok.configs import GeneratorConfig
from reptok.generator import TokenGenerator
from reptok.metrics.sample_files import NpzImages
from reptok.pipeline import RepTokPipeline
from reptok.pretrained import load_pretrained, save_pretrained
from tests.fixtures.tiny_tokenizer import tiny_tokenizer

FEW = {"generator_steps": 3, "decoder_steps": 2, "guidance": 2.0}
ONE = WorkerResources(workers=1)


@pytest.fixture(scope="module")
def model(tiny_models, tmp_path_factory):
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer(tiny_models)
    config = GeneratorConfig(token_dim=32, dim=16, depth=1, condition="class", num_classes=3)
    generator = TokenGenerator(config)
    for parameter in generator.parameters():  # classes must differ before any training
        torch.nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():
        for parameter in tokenizer.trainable_parameters():  # and the decoder must read the token
            parameter.add_(torch.randn_like(parameter) * 0.1)
    folder = tmp_path_factory.mktemp("published") / "model"
    save_pretrained(RepTokPipeline(tokenizer, generator, class_names=["cat", "dog", "cow"]), folder)
    return str(folder)


def sampled(run_stage, model, name, batch_size=4, **settings):
    compute = ComputeConfig(batch_size=batch_size)
    config = SampleImagesConfig(model=model, compute=compute, workers=ONE, **{**FEW, **settings})
    return run_stage(SampleImages(config), {}, name)


def pixels(artifact):
    parts = [NpzImages(artifact.local_path(name)) for name in artifact.files("samples-*.npz")]
    return torch.cat([batch for part in parts for batch in part.batches(3)]).permute(0, 2, 3, 1).numpy()


def test_a_row_is_what_the_pipeline_makes_of_its_class_and_seed(model, run_stage):
    artifact, stats = sampled(run_stage, model, "s", images=7, rows_per_shard=5, seed=100)
    assert stats["rows_out"] == 7
    assert artifact.files("*.npz") == ["samples-00000.npz", "samples-00001.npz"]
    rows = [
        json.loads(line)
        for name in artifact.files("*.jsonl")
        for line in artifact.read_bytes(name).splitlines()
    ]
    assert [row["asked"] for row in rows] == [0, 1, 2, 0, 1, 2, 0], "every class equally often"
    assert [row["seed"] for row in rows] == list(range(100, 107))
    made = pixels(artifact)
    pipe = load_pretrained(model).eval()
    for row in (1, 6):
        (picture,) = pipe(
            labels=[rows[row]["asked"]], seed=100 + row, cfg_scale=2.0, num_steps=3, decoder_steps=2
        )
        difference = np.abs(np.asarray(picture).astype(int) - made[row])
        assert difference.max() <= 1, "rounding of another batch"
    assert np.abs(made[0].astype(int) - made[1]).max() > 2


@pytest.mark.parametrize("batch_size", [5, 12])
def test_batches_and_shards_change_no_pixel(model, run_stage, batch_size):
    reference = pixels(sampled(run_stage, model, "r", batch_size=3, images=14, rows_per_shard=14)[0])
    other, _ = sampled(run_stage, model, f"b{batch_size}", batch_size=batch_size, images=14, rows_per_shard=6)
    difference = np.abs(pixels(other).astype(int) - reference)
    assert difference.max() <= 1 and (difference > 0).mean() < 0.002


def test_two_runs_give_the_same_bytes(model, run_stage):
    whole, _ = sampled(run_stage, model, "w", images=9, rows_per_shard=3)
    second, _ = sampled(run_stage, model, "again", images=9, rows_per_shard=3)
    assert whole.manifest["files"] == second.manifest["files"]


def test_the_guidance_interval_is_that_of_the_stage(model, run_stage):
    """Of the times 0, 1/3 and 2/3 none lies between 0.8 and 1: there guidance changes nothing."""

    def made(name, guidance, interval):
        return pixels(
            sampled(run_stage, model, name, images=3, guidance=guidance, guidance_interval=interval)[0]
        )

    plain = made("plain", 1.0, (0.0, 1.0)).astype(int)
    assert np.abs(made("never", 6.0, (0.8, 1.0)) - plain).max() <= 1
    assert np.abs(made("always", 6.0, (0.0, 1.0)) - plain).max() > 2


def test_prompts_say_how_many(tmp_path):
    (tmp_path / "p.txt").write_bytes("\ufeffa cat\n\n a dög \r\n".encode())
    assert read_prompts(tmp_path / "p.txt") == ["a cat", "a dög"]
    assert rows_of(["a", "b"], 0, "", 4) == 8
    assert rows_of([], 0, "coco2017_5k", 1) == 5000
    assert rows_of([], 12, "adm256_50k", 1) == 12
    with pytest.raises(ValueError, match="leave images out"):
        rows_of(["a"], 3, "", 1)
    with pytest.raises(ValueError, match="say how many"):
        rows_of([], 0, "", 1)
    (tmp_path / "none.txt").write_text("\n \n")
    with pytest.raises(ValueError, match="holds no prompts"):
        read_prompts(tmp_path / "none.txt")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="no text in UTF-8"):
        read_prompts(tmp_path / "bytes.txt")


def test_prompts_for_a_model_of_classes_are_refused(model, run_stage, tmp_path):
    (tmp_path / "p.txt").write_text("a cat\n")
    with pytest.raises(Exception, match="reads no text"):
        sampled(run_stage, model, "x", prompts=str(tmp_path / "p.txt"))


def test_sets_are_asked_for_the_same_and_have_noise_of_their_own(model, run_stage):
    both, _ = sampled(run_stage, model, "both", images=5, sets=2, rows_per_shard=3)
    first, _ = sampled(run_stage, model, "first", images=5, rows_per_shard=3)
    second, _ = sampled(run_stage, model, "second", images=5, rows_per_shard=3, seed=5)
    assert [(f.file, f.rows, f.set) for f in sample_files(both)] == [
        ("samples-00000.npz", 3, 0), ("samples-00001.npz", 2, 0),
        ("samples-00002.npz", 3, 1), ("samples-00003.npz", 2, 1),
    ]  # fmt: skip
    assert np.array_equal(pixels(both), np.concatenate([pixels(first), pixels(second)]))
    (line, *_) = both.read_bytes("samples-00002.jsonl").splitlines()
    assert json.loads(line) == {"row": 5, "asked": 0, "seed": 5}


def test_prints_of_a_protocol_are_those_of_its_number(model):
    adm, same, fewer = (
        fingerprint("s", 1, SampleImages(SampleImagesConfig(model=model, **settings)).config, {})
        for settings in ({"protocol": "adm256_50k"}, {"images": 50_000}, {"protocol": "coco2017_5k"})
    )
    assert adm == same != fewer, "a protocol is the number of its samples"


def test_no_model_is_refused():
    with pytest.raises(ValueError, match="which model"):
        SampleImages(SampleImagesConfig(images=2))
