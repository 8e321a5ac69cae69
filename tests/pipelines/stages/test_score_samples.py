"""Reconstructions and scores over shards: the figures of a direct computation, however the work was cut."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipelines.dag.fingerprint import fingerprint
from pipelines.dag.shards import WorkerResources
from pipelines.encoding.device import ComputeConfig
from pipelines.evaluation.judges import EncoderJudge, ScoresConfig
from pipelines.evaluation.looking import LookConfig, reference_of, seen
from pipelines.evaluation.real_images import RealImagesConfig
from pipelines.evaluation.reconstructing import ReconstructImagesConfig
from pipelines.evaluation.results import Evaluation
from pipelines.evaluation.sampling import SampleFile
from pipelines.stages.look_at_images import LookAtReference, LookAtReferenceConfig, LookAtSamples
from pipelines.stages.reconstruct_images import ReconstructImages
from pipelines.stages.score_samples import ScoreSamples, ScoreSamplesConfig
from reptok.data.transforms import quantised
from reptok.metrics.clip_score import ClipScore
from reptok.metrics.features import EncoderFeatures
from reptok.metrics.frechet import FeatureStatistics, frechet_distance
from reptok.metrics.perceptual import Lpips
from reptok.metrics.reconstruction import psnr
from reptok.metrics.sample_files import NpzImages, NpzWriter
from reptok.pipeline import RepTokPipeline
from reptok.pretrained import load_tokenizer, save_pretrained
from tests.fixtures.tiny_tokenizer import tiny_tokenizer

ONE = WorkerResources(workers=1)
REAL = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def real(tmp_path):
    np.savez(tmp_path / "real.npz", REAL)
    return str(tmp_path / "real.npz")


@pytest.fixture
def look(tiny_models):
    return LookConfig(
        recipe="encoder", name="vit", folder=str(tiny_models / "encoder"), batch_size=3, workers=ONE
    )


def samples_of(make_artifact, *sets, rows=5, name="samples"):
    """An artifact `samples` of sets of images, `rows` in a file."""

    def write(out):
        files = []
        for number, images in enumerate(sets):
            for part in torch.from_numpy(images).permute(0, 3, 1, 2).split(rows):
                file = f"samples-{len(files):05d}.npz"
                with out.create(file) as target:
                    archive = NpzWriter(target, len(part), 32)
                    archive.add(part)
                    archive.close()
                out.write_bytes(file.replace(".npz", ".jsonl"), b'{"row": 0}\n')
                files.append(SampleFile(file, len(part), number))
        out.write_json("index.json", [vars(file) for file in files])

    return make_artifact("samples", write, name)


def scored(run_stage, samples, real, look, name, **settings):
    features, _ = run_stage(LookAtSamples(look), {"samples": samples}, f"{name}-features")
    config = LookAtReferenceConfig(look=look, real=RealImagesConfig(path=real, rows_per_shard=7))
    reference, _ = run_stage(LookAtReference(config), {}, f"{name}-reference")
    inputs = {"samples": samples, "sample_features_vit": features, "reference_features_vit": reference}
    named = ScoreSamplesConfig(reference="real", networks=("vit",), **settings)
    return run_stage(ScoreSamples(named), inputs, f"{name}-scores")


def test_scores_are_those_of_the_whole_sets_seen_at_once(run_stage, make_artifact, real, look, tiny_models):
    made = np.random.default_rng(1).integers(0, 200, (12, 32, 32, 3), dtype=np.uint8)
    artifact, stats = scored(run_stage, samples_of(make_artifact, made), real, look, "a")
    network = EncoderFeatures.from_folder(tiny_models / "encoder")
    whole = [
        FeatureStatistics.of(network.look(torch.from_numpy(images).permute(0, 3, 1, 2))["pooled"])
        for images in (made, REAL)
    ]
    assert stats["gfd_vit/real_n12"] == pytest.approx(frechet_distance(*whole), rel=1e-4)
    found = {score.name: score for score in Evaluation.read(artifact).scores}
    recall = found["recall_vit/real_n12"]
    assert recall.higher_is_better and recall.images == 20 and recall.error is not None
    assert found["gfd_vit/real_n12"].images == 12
    _, same = scored(run_stage, samples_of(make_artifact, REAL, rows=6, name="own"), real, look, "b")
    assert same["precision_vit/real_n20"] == same["recall_vit/real_n20"] == 1
    assert same["gfd_vit/real_n20"] < 1e-6


def test_of_several_sets_stand_mean_and_its_error(run_stage, make_artifact, real, look):
    draw = np.random.default_rng(2)
    sets = [draw.integers(0, top, (9, 32, 32, 3), dtype=np.uint8) for top in (200, 220, 256)]
    artifact, stats = scored(run_stage, samples_of(make_artifact, *sets), real, look, "all")
    alone = [
        scored(run_stage, samples_of(make_artifact, images, name=f"s{n}"), real, look, f"one{n}")[1]
        for n, images in enumerate(sets)
    ]
    values = np.array([found["gfd_vit/real_n9"] for found in alone])
    assert stats["gfd_vit/real_n9"] == pytest.approx(values.mean(), rel=1e-6)
    found = {score.name: score for score in Evaluation.read(artifact).scores}
    assert found["gfd_vit/real_n9"].error == pytest.approx(values.std(ddof=1) / 3**0.5, rel=1e-6)


def test_a_network_that_reads_scores_each_sample_by_what_was_asked(run_stage, make_artifact, small_clip):
    """Of a CLIP that learnt four colours: pictures of them, and captions that are right or one too far."""
    clip, folder = small_clip
    colours = sorted(clip.COLOURS)

    def write(shift):
        def write(out):
            files = []
            for file in range(2):
                told = [f"a {colours[(n + shift) % 4]} square" for n in range(4)]
                pictures = np.stack([clip.picture(colour, 50 + file, 32) for colour in colours])
                with out.create(f"samples-{file:05d}.npz") as target:
                    archive = NpzWriter(target, 4, 32)
                    archive.add(torch.from_numpy(pictures).permute(0, 3, 1, 2))
                    archive.close()
                rows = [json.dumps({"asked": text}) for text in told]
                out.write_bytes(f"samples-{file:05d}.jsonl", "\n".join(rows).encode())
                files.append(SampleFile(f"samples-{file:05d}.npz", 4))
            out.write_json("index.json", [vars(file) for file in files])

        return write

    look = LookConfig(recipe="clip", name="clip", folder=str(folder), batch_size=3, workers=ONE)
    found = {}
    for name, shift in (("right", 0), ("wrong", 1)):
        samples = make_artifact("samples", write(shift), name)
        features, _ = run_stage(LookAtSamples(look), {"samples": samples}, f"{name}-features")
        inputs = {"samples": samples, "sample_features_clip": features, "reference_features_clip": features}
        named = ScoreSamplesConfig(reference="r", networks=("clip",))
        artifact, _ = run_stage(ScoreSamples(named), inputs, f"{name}-scores")
        found[name] = {score.name: score for score in Evaluation.read(artifact).scores}["clip_score/r_n8"]
    network = ClipScore.from_folder(folder)
    pixels = np.stack([clip.picture(colour, seed, 32) for seed in (50, 51) for colour in colours])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1
    each = network(images, [f"a {colour} square" for colour in colours] * 2).double()
    assert found["right"].value == pytest.approx(float(each.mean()), rel=1e-5)
    assert found["right"].error == pytest.approx(float(each.std()) / 8**0.5, rel=1e-4)
    assert found["right"].higher_is_better and "100 max(cos, 0)" in found["right"].note
    assert found["right"].value > found["wrong"].value + 10


def test_a_reference_of_moments_alone_needs_no_images(run_stage, make_artifact, tmp_path, monkeypatch):
    """As ADM's statistics; for their network, Inception, stands one that sees an image's mean colour."""

    class Colours:
        name = "inception"

        def look(self, pixels):
            return {"pooled": pixels.float().mean((2, 3))}

    monkeypatch.setattr(LookConfig, "network", lambda self: Colours())
    (tmp_path / "weights.pth").write_bytes(b"none")
    look = LookConfig(file=str(tmp_path / "weights.pth"), workers=ONE)
    means = REAL.reshape(20, -1, 3).mean(1)
    np.savez(tmp_path / "moments.npz", mu=means.mean(0), sigma=np.cov(means, rowvar=False))
    config = LookAtReferenceConfig(look=look, real=RealImagesConfig(path=str(tmp_path / "moments.npz")))
    artifact, stats = run_stage(LookAtReference(config), {}, "moments")
    assert stats == {"rows_in": 0, "rows_out": 0}
    reference = reference_of(artifact)
    assert reference.images is None
    assert np.allclose(reference.pooled.covariance, np.cov(means, rowvar=False))
    features, _ = run_stage(LookAtSamples(look), {"samples": samples_of(make_artifact, REAL)}, "features")
    made = FeatureStatistics.of(seen(features).pooled)
    assert frechet_distance(made, reference.pooled) == pytest.approx(0, abs=1e-3)


@pytest.fixture(scope="module")
def model(tiny_models, tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("published") / "model"
    tokenizer = tiny_tokenizer(tiny_models)
    save_pretrained(RepTokPipeline(tokenizer), folder)
    return str(folder), tokenizer.eval()


def rows_of(artifact):
    lines = [artifact.read_bytes(name).splitlines() for name in artifact.files("*.jsonl")]
    return [json.loads(line) for part in lines for line in part]


def test_a_row_is_the_models_reconstruction_of_its_image(run_stage, real, model):
    folder, tokenizer = model
    config = ReconstructImagesConfig(
        model=folder, real=RealImagesConfig(path=real, rows_per_shard=4, images=6), decoder_steps=2, seed=40,
        quantisation="truncate", compute=ComputeConfig(batch_size=3), workers=ONE,
    )  # fmt: skip
    artifact, stats = run_stage(ReconstructImages(config), {}, "rebuilt")
    assert stats["rows_out"] == 6 and len(artifact.files("*.npz")) == 2
    originals = torch.from_numpy(REAL[:6]).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        expected = tokenizer.reconstruct(originals, num_steps=2, seed=list(range(40, 46)))
    parts = [NpzImages(artifact.local_path(name)) for name in artifact.files("*.npz")]
    found = torch.cat([batch for part in parts for batch in part.batches(9)])
    difference = (found.int() - quantised(expected, "truncate").int()).abs()
    assert difference.max() <= 1 and (difference > 0).float().mean() < 0.01
    rows = rows_of(artifact)
    assert [(row["row"], row["seed"]) for row in rows] == [(n, 40 + n) for n in range(6)]
    assert [row["psnr"] for row in rows] == pytest.approx(psnr(expected, originals).tolist(), abs=1e-3)


def test_reconstructions_have_an_lpips_each_where_its_network_is_given(run_stage, tmp_path):
    """Of pictures of 64 pixels, the fewest that its AlexNet sees; whose weights are random here."""
    pytest.importorskip("lpips", reason="lpips is not installed")
    from torchvision.models import alexnet

    torch.manual_seed(0)
    weights = tmp_path / "alexnet.safetensors"
    save_file({k: v for k, v in alexnet().state_dict().items() if k.startswith("features.")}, weights)
    np.savez(tmp_path / "r.npz", np.random.default_rng(3).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8))
    config = ReconstructImagesConfig(
        model="zoo/reptok", real=RealImagesConfig(path=str(tmp_path / "r.npz"), rows_per_shard=3),
        decoder_steps=1, lpips_weights=str(weights), workers=ONE,
    )  # fmt: skip
    rebuilt, _ = run_stage(ReconstructImages(config), {}, "rebuilt")
    images = torch.from_numpy(np.load(tmp_path / "r.npz")["arr_0"]).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        made = load_tokenizer("zoo/reptok/tokenizer").reconstruct(images, num_steps=1, seed=[0, 1, 2, 3])
    each = Lpips(weights)(made, images).double()
    assert [row["lpips"] for row in rows_of(rebuilt)] == pytest.approx(each.tolist(), rel=1e-3)
    named = ScoreSamplesConfig(reference="r", networks=(), task="reconstruction")
    artifact, stats = run_stage(ScoreSamples(named), {"samples": rebuilt}, "scores")
    assert stats["lpips/r_n4"] == pytest.approx(float(each.mean()), rel=1e-3)
    (found,) = (score for score in Evaluation.read(artifact).scores if score.name == "lpips/r_n4")
    assert found.error == pytest.approx(float(each.std()) / 2, rel=1e-2) and found.higher_is_better is False


def test_reconstructions_are_scored_against_their_originals(run_stage, real, model, look):
    originals = RealImagesConfig(path=real, images=8, rows_per_shard=5)
    config = ReconstructImagesConfig(model=model[0], real=originals, decoder_steps=1, workers=ONE)
    samples, _ = run_stage(ReconstructImages(config), {}, "rebuilt")
    artifact, stats = scored(run_stage, samples, real, look, "r", task="reconstruction")
    values = np.array([row["psnr"] for row in rows_of(samples)])
    assert stats["psnr/real_n8"] == pytest.approx(values.mean(), rel=1e-5)
    found = {score.name: score for score in Evaluation.read(artifact).scores}
    assert found["psnr/real_n8"].error == pytest.approx(values.std(ddof=1) / 8**0.5, rel=1e-5)
    assert found["psnr/real_n8"].unit == "dB" and "rfd_vit/real_n8" in stats


def test_more_originals_than_there_are_are_refused(run_stage, real, model):
    config = ReconstructImagesConfig(model=model[0], real=RealImagesConfig(path=real, images=21), workers=ONE)
    with pytest.raises(ValueError, match=r"21 real images are wanted, and .* holds 20"):
        run_stage(ReconstructImages(config), {}, "x")


def test_what_is_compared_with_is_significant_and_where_it_lies_is_not(tmp_path):
    for name, content in (("r.npz", b"one"), ("s.npz", b"one"), ("t.npz", b"two")):
        (tmp_path / name).write_bytes(content)
    for folder, sizes in (("a", (3, 4)), ("b", (3, 4)), ("c", (3, 5))):
        (tmp_path / folder).mkdir()
        for number, size in enumerate(sizes):
            (tmp_path / folder / f"{number}.png").write_bytes(b"x" * size)
    prints = {
        name: fingerprint("s", 1, RealImagesConfig(path=str(tmp_path / name)), {})
        for name in ("r.npz", "s.npz", "t.npz", "a", "b", "c")
    }
    assert prints["r.npz"] == prints["s.npz"] != prints["t.npz"]
    assert prints["a"] == prints["b"] != prints["c"]


def test_who_looks_is_named_once():
    assert ScoresConfig().looks("reconstruction") == []
    with pytest.raises(ValueError, match="who looks at the samples"):
        ScoresConfig().looks("generation")
    with pytest.raises(ValueError, match="two networks of one name: vit, vit"):
        ScoresConfig(encoder="a", encoders=(EncoderJudge(name="vit", folder="b"),)).looks("generation")
    with pytest.raises(ValueError, match="a network's name is of a-z and 0-9"):
        ScoresConfig(encoders=(EncoderJudge(name="my_vit", folder="b"),)).looks("generation")
    looks = ScoresConfig(inception_weights="i", encoder="v", dinov2="d", clip="c").looks("generation")
    assert [look.name for look in looks] == ["inception", "vit", "dinov2", "clip"]
    with pytest.raises(ValueError, match="no protocol 'fid'"):
        ScoreSamplesConfig(protocol="fid")
