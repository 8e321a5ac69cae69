import io
import shutil

import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from pipelines.dag.artifact import Artifact
from pipelines.dag.workspace import Workspace
from pipelines.evaluation.results import Evaluation
from pipelines.stages.evaluate_tokenizer import EvaluateTokenizer, EvaluateTokenizerConfig
from reptok.configs import EncoderConfig


def evaluate(world, run_stage, name="out", **settings):
    settings = {"images": 12, "interpolation_pairs": 2, **settings}
    config = EvaluateTokenizerConfig(neighbours=5, decoder_steps=2, **settings)
    return run_stage(
        EvaluateTokenizer(config), {kind: world[kind] for kind in ("dataset", "tokenizer")}, name
    )


@pytest.fixture(scope="module")
def report(small_world, tmp_path_factory):
    """The published report and its stats, with the tokenizer itself as the reference."""

    def run(stage, inputs, name):
        out = Workspace(str(tmp_path_factory.mktemp(name)), name)
        stats = stage.run(inputs, out)
        out.publish({"stage": stage.name})
        return Artifact(stage.output, name, out.url), stats

    return evaluate(small_world, run, reference_tokenizer=str(small_world["tokenizer"].local_path()))


def test_figures_stand_between_their_baselines(report):
    artifact, stats = report
    evaluation = Evaluation.read(artifact)
    assert evaluation.metrics == stats
    assert stats["eval/images"] == 12
    assert stats["eval/recognised_originals"] == 1.0  # three plain colours
    assert stats["eval/psnr_subject_mean"] > 20  # each subject is one colour and noise
    # The reference is the same tokenizer, and noise follows from the image alone.
    assert stats["eval/psnr_reference"] == stats["eval/psnr"]
    assert stats["eval/psnr_above_wrong_token"] == pytest.approx(
        stats["eval/psnr"] - stats["eval/psnr_wrong_token"]
    )
    assert stats["val/loss"] == pytest.approx(sum(stats[f"val/loss_segment_{i}"] for i in range(8)) / 8)
    psnr = evaluation.scores[0]
    assert list(psnr.baselines) == ["subject mean", "wrong token", "reference", "VAE alone"]


def plain(stats):
    return {name for name in stats if not name.endswith("_n12")}


def test_fewer_than_were_asked_for_is_said_in_every_name(small_world, run_stage):
    """12 images and 12 pairs are all there are."""
    artifact, stats = evaluate(small_world, run_stage, images=13)
    pairs = {name for name in plain(stats) if name.startswith("eval/interpolation_")}
    assert plain(stats) == {"eval/images", *pairs} and len(pairs) == 6 and stats["eval/images"] == 12
    assert {"eval/psnr_n12", "eval/psnr_error_n12", "val/loss_n12", "eval/recognised_n12"} <= stats.keys()
    evaluation = Evaluation.read(artifact)
    *images, walk = [score.name for score in evaluation.scores]
    assert images[0] == "PSNR, on 12 of 13 validation images"
    assert all(
        name.endswith(", on 12 of 13 validation images") for name in images if "Recognised" not in name
    )
    assert walk == "Interpolation, longest step"  # there were both pairs
    assert evaluation.notes[0].startswith("evaluate.tokenizer.images asks for 13 validation images")


def test_recognition_counts_images_of_subjects_that_are_known(small_world, run_stage, make_artifact):
    """Trainings pass over all that shows a brick: nobody can recognise the four bricks."""

    def write(out: Workspace) -> None:
        rows = pq.read_table(io.BytesIO(small_world["dataset"].read_bytes("train-00000.parquet")))
        bricks = [row for row, subject in enumerate(rows["subject"].to_pylist()) if subject == "brick"]
        for name in small_world["dataset"].files():
            out.write_bytes(name, small_world["dataset"].read_bytes(name))
        out.write_json("excluded.json", {"train-00000": bricks})

    world = {**small_world, "dataset": make_artifact("dataset", write)}
    artifact, stats = evaluate(world, run_stage, interpolation_pairs=13, interpolation_frames=3)
    assert {name for name in stats if name.endswith("_n8")} == {
        f"eval/recognised{what}_n8" for what in ("", "_originals", "_vae", "_error", "_ratio")
    }
    psnr, *_, recognised, walk = Evaluation.read(artifact).scores
    assert recognised.images == 8 and psnr.name == "PSNR"
    assert recognised.name.endswith("its subject, on 8 of 12 validation images of known subjects")
    assert walk.name.endswith(", on 12 of 13 pairs of validation images")
    assert len([name for name in stats if name.startswith("eval/interpolation") and "_n12" in name]) == 6


def test_what_was_not_measured_is_said(report):
    artifact, stats = report
    assert not any("fid" in name or "lpips" in name for name in stats)
    assert any("No FID" in note for note in Evaluation.read(artifact).notes)


def test_a_given_encoder_judges_in_the_place_of_the_models_own(
    report, small_world, run_stage, tiny_models, tmp_path
):
    """Features twice as long are told apart as well, and four times as far: it is a squared distance."""
    other = tmp_path / "other"
    shutil.copytree(tiny_models / "encoder", other)
    weights = load_file(other / "model.safetensors")
    doubled = {name: tensor * (2 if name.startswith("norm.") else 1) for name, tensor in weights.items()}
    assert doubled.keys() & {"norm.weight", "norm.bias"}
    save_file(doubled, other / "model.safetensors")
    judge = EncoderConfig(name="folder", path=str(other), image_size=32)
    artifact, stats = evaluate(small_world, run_stage, judge=judge)
    own = report[1]
    for name in ("eval/fd_vit_n12", "eval/fd_vit_vae_n12", "eval/fd_vit_training_images_n12"):
        assert own[name] > 0 and stats[name] == pytest.approx(4 * own[name], rel=1e-3)
    assert stats["eval/psnr"] == own["eval/psnr"] and stats["eval/recognised"] == own["eval/recognised"]
    assert any("named judge" in note for note in Evaluation.read(artifact).notes)


def test_every_plate_is_a_picture(report):
    artifact, _ = report
    figures = Evaluation.read(artifact).figures
    assert sorted(figure.file for figure in figures) == artifact.files("*.webp")
    for figure in figures:
        assert Image.open(io.BytesIO(artifact.read_bytes(figure.file))).width > 100


def test_a_reference_that_is_not_there_is_an_error(small_world, run_stage):
    with pytest.raises(FileNotFoundError, match="reference_tokenizer: there is no folder 'no/such/folder'"):
        evaluate(small_world, run_stage, reference_tokenizer="no/such/folder")


def test_the_batch_size_changes_nothing(small_world, run_stage):
    first, second = (evaluate(small_world, run_stage, f"batch{size}", batch_size=size)[1] for size in (5, 12))
    assert first == pytest.approx(second, rel=1e-4, abs=1e-5)


def test_a_dataset_without_validation_images_is_refused(small_world, make_artifact, run_stage):
    from pipelines.stages.dataset import DatasetShardWriter, write_index

    def write(out: Workspace) -> None:
        with DatasetShardWriter(out, "train-00000"):
            pass
        write_index(out, ["train-00000"], 32)

    world = {**small_world, "dataset": make_artifact("dataset", write)}
    with pytest.raises(ValueError, match="no 'val' samples"):
        evaluate(world, run_stage)
