"""A published model asked over shards: the same pixels whatever batch, shard or worker, and its scores."""

import json

import numpy as np
import pytest
import torch

from pipelines.dag.fingerprint import fingerprint
from pipelines.dag.shards import WorkerResources
from pipelines.encoding.device import ComputeConfig
from pipelines.evaluation.results import Evaluation
from pipelines.evaluation.sampling import SampleImagesConfig, SampleShards, read_prompts, rows_of
from pipelines.stages.sample_images import SampleImages
from pipelines.stages.score_samples import ScoreSamples, ScoreSamplesConfig
from reptok.configs import GeneratorConfig
from reptok.generator import TokenGenerator
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
    folder = tmp_path_factory.mktemp("published") / "model"
    save_pretrained(RepTokPipeline(tokenizer, generator, class_names=["cat", "dog", "cow"]), folder)
    return str(folder)


def sampled(run_stage, model, name, batch_size=4, **settings):
    compute = ComputeConfig(batch_size=batch_size)
    config = SampleImagesConfig(model=model, compute=compute, workers=ONE, **FEW, **settings)
    return run_stage(SampleImages(config), {}, name)


def pixels(artifact):
    return torch.cat(list(SampleShards(artifact).batches(3))).permute(0, 2, 3, 1).numpy()


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


def test_scores_have_protocol_number_and_error(model, run_stage, tiny_models, tmp_path):
    samples, _ = sampled(run_stage, model, "scored", images=12, rows_per_shard=5)
    np.savez(
        tmp_path / "real.npz", np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    )
    own = tmp_path / "own.npz"
    np.savez(own, pixels(samples))
    for reference, far in ((tmp_path / "real.npz", True), (own, False)):
        config = ScoreSamplesConfig(
            reference=str(reference), encoder=str(tiny_models / "encoder"), batch_size=5
        )
        artifact, stats = run_stage(ScoreSamples(config), {"samples": samples}, f"scores-{reference.stem}")
        assert (stats[f"gfd_vit/{reference.stem}_n12"] > 1e-3) is far
        found = {score.name: score for score in Evaluation.read(artifact).scores}
        recall = found[f"recall_vit/{reference.stem}_n12"]
        assert recall.higher_is_better and recall.images == (20 if far else 12) and recall.error is not None
    assert stats["precision_vit/own_n12"] == stats["recall_vit/own_n12"] == 1


def test_what_is_scored_is_significant_and_where_it_lies_is_not(model, tmp_path):
    (tmp_path / "r.npz").write_bytes(b"one")
    (tmp_path / "s.npz").write_bytes(b"one")
    (tmp_path / "t.npz").write_bytes(b"two")
    prints = [
        fingerprint("s", 1, ScoreSamplesConfig(reference=str(tmp_path / f"{name}.npz")), {}) for name in "rst"
    ]
    assert prints[0] == prints[1] != prints[2]
    adm, same, fewer = (
        fingerprint("s", 1, SampleImages(SampleImagesConfig(model=model, **settings)).config, {})
        for settings in ({"protocol": "adm256_50k"}, {"images": 50_000}, {"protocol": "coco2017_5k"})
    )
    assert adm == same != fewer, "a protocol is the number of its samples"


def test_nobody_or_two_to_look_is_refused(tmp_path, tiny_models):
    (tmp_path / "r.npz").write_bytes(b"one")
    for both in ({}, {"inception_weights": str(tmp_path / "r.npz"), "encoder": str(tiny_models / "encoder")}):
        with pytest.raises(ValueError, match="who looks at the samples"):
            ScoreSamples(ScoreSamplesConfig(reference=str(tmp_path / "r.npz"), **both))
    with pytest.raises(ValueError, match="no protocol 'fid'"):
        ScoreSamplesConfig(protocol="fid")
    with pytest.raises(ValueError, match="which model"):
        SampleImages(SampleImagesConfig(images=2))
