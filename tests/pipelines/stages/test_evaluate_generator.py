import shutil
import zlib
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipelines.dag.stage import StageResult
from pipelines.evaluation.results import Evaluation
from pipelines.evaluation.sampling import SolverName
from pipelines.stages.evaluate_generator import EvaluateGenerator, EvaluateGeneratorConfig
from pipelines.sweep import scores_of
from reptok.configs import EncoderConfig, TextEncoderConfig
from reptok.flow.solver import SOLVERS
from reptok.metrics.clip_score import ClipScore
from reptok.pipeline import RepTokPipeline
from reptok.pretrained import load_generator, load_tokenizer
from reptok.text_encoder import TextEncoder

SMALL = {"neighbours": 5, "decoder_steps": 2, "generator_steps": 4, "shown_samples": 2}


def evaluate(world, run_stage, generator="generator", name="out", **settings):
    inputs = {"dataset": world["dataset"], "tokenizer": world["tokenizer"], "generator": world[generator]}
    config = EvaluateGeneratorConfig(**{**SMALL, "samples": 12, **settings})
    return run_stage(EvaluateGenerator(config), inputs, name)


@pytest.fixture
def text_encoder(tiny_models):
    return TextEncoderConfig(kind="clip", path=str(tiny_models / "text_encoder"), max_length=16)


def test_a_text_generator_is_judged_beside_real_images(small_world, run_stage, text_encoder):
    artifact, stats = evaluate(small_world, run_stage, text_encoder=text_encoder)
    assert stats["eval/recognised_real"] == 1.0
    for scale in ("1", "1.5"):
        ratio = stats[f"eval/recognised_cfg_{scale}"] / stats["eval/recognised_real"]
        assert stats[f"eval/recognised_ratio_cfg_{scale}"] == pytest.approx(ratio)
        assert stats[f"eval/gfd_vit_cfg_{scale}_n12"] > stats["eval/fd_vit_training_images_n12"]
    evaluation = Evaluation.read(artifact)
    assert evaluation.scores[0].baselines["blind guess"] == pytest.approx(100 / 3)
    assert evaluation.figures[0].file == "samples.webp"
    own = evaluation.scores[1]
    assert own.value == pytest.approx(100 * stats["eval/own_picture_cfg_1.5"])
    assert own.baselines["captions permuted"] == 50 and own.certainty.startswith("± ")
    assert own.error == 100 * stats["eval/own_picture_error_cfg_1.5"] > 0
    assert 0 <= stats["eval/unknown_words"] <= 1
    assert any(score.name.startswith("Words of the captions") for score in evaluation.scores)


def test_fewer_than_were_asked_for_is_said_in_every_name(small_world, run_stage, text_encoder):
    artifact, stats = evaluate(small_world, run_stage, text_encoder=text_encoder, samples=200)
    plain = {name for name in stats if not name.endswith("_n12")}
    assert plain == {"eval/samples", "eval/unknown_words"}  # captions of training images, too
    assert {"eval/recognised_cfg_1.5_n12", "eval/gfd_vit_cfg_1_n12", "val/loss_n12"} <= stats.keys()
    evaluation = Evaluation.read(artifact)
    names = [score.name for score in evaluation.scores if not score.name.startswith("Words")]
    assert names[0] == "Recognised as asked for, guidance 1.5, on 12 of 200 validation images"
    assert all(name.endswith(", on 12 of 200 validation images") for name in names) and len(names) >= 5
    assert evaluation.notes[0].startswith("evaluate.generator.samples asks for 200 validation images")
    result = StageResult(name="evaluate_generator", action="run", stats=stats, artifact=artifact)
    assert "Recognised as asked for, on 12 of 200 validation images" in scores_of([result])


def test_the_batch_size_changes_nothing(small_world, run_stage, text_encoder):
    first, second = (
        evaluate(small_world, run_stage, name=f"b{size}", text_encoder=text_encoder, batch_size=size)[1]
        for size in (5, 12)
    )
    assert first == pytest.approx(second, rel=1e-3, abs=1e-4)


def test_the_guidance_interval_is_the_evaluations_own(small_world, run_stage, text_encoder):
    """Of the times 0, 1/4, 1/2 and 3/4 none lies between 0.8 and 1: there guidance changes nothing."""

    def distances(interval):
        settings = {"guidance": (1.0, 6.0), "guidance_interval": interval, "text_encoder": text_encoder}
        stats = evaluate(small_world, run_stage, name=f"from {interval[0]}", **settings)[1]
        return stats["eval/gfd_vit_cfg_1_n12"], stats["eval/gfd_vit_cfg_6_n12"]

    plain, never = distances((0.8, 1.0))
    assert never == pytest.approx(plain, rel=1e-4)
    also_plain, always = distances((0.0, 1.0))
    assert also_plain == pytest.approx(plain, rel=1e-4)
    assert always != pytest.approx(plain, rel=1e-3)


def test_a_given_encoder_judges_in_the_place_of_the_models_own(small_world, run_stage, tiny_models, tmp_path):
    own = EncoderConfig(name="folder", path=str(tiny_models / "encoder"), image_size=32)
    other = tmp_path / "other"
    shutil.copytree(tiny_models / "encoder", other)
    weights = load_file(other / "model.safetensors")
    save_file({name: tensor * 1.3 for name, tensor in weights.items()}, other / "model.safetensors")

    def distance(name, judge):
        settings = {"guidance": (1.0,), "judge": judge}
        return evaluate(small_world, run_stage, "class_generator", name, **settings)[1][
            "eval/gfd_vit_cfg_1_n12"
        ]

    without = distance("without", None)
    assert distance("own", own) == pytest.approx(without, rel=1e-4)
    assert distance("other", replace(own, path=str(other))) != pytest.approx(without, rel=1e-2)


def test_clip_sees_what_the_pipeline_makes(small_world, run_stage, text_encoder, monkeypatch, tmp_path):
    """In [-1, 1], each with its own caption and from its own seed."""
    seen = []

    class Watching(ClipScore):
        def __call__(self, images, texts):
            seen.append((images, texts))
            return super().__call__(images, texts)

    class Colours(torch.nn.Module):
        def encode_image(self, images):
            return images.mean((2, 3)) + 2

        def encode_text(self, tokens):
            return torch.ones(len(tokens), 3)

    def load(weights, architecture, device):
        return Watching(Colours(), lambda texts: torch.zeros(len(texts)), 8, [0.5] * 3, [0.5] * 3)

    monkeypatch.setattr(ClipScore, "from_weights", load)
    settings = {"guidance": (1.5,), "text_encoder": text_encoder, "clip_weights": str(tmp_path)}
    evaluate(small_world, run_stage, **settings)
    images, texts = torch.cat([images for images, _ in seen]), [text for _, found in seen for text in found]
    assert len(images) == len(texts) == 12 and texts[0] == "a photo of <b>brick</b>"
    pipe = RepTokPipeline(
        load_tokenizer(small_world["tokenizer"].local_path()),
        load_generator(small_world["generator"].local_path()),
        TextEncoder(text_encoder),
    ).eval()
    seeds = [zlib.crc32(f"{4 * number:012d}".encode()) for number in range(12)]
    made = pipe(texts, num_steps=4, decoder_steps=2, seed=seeds)
    wanted = torch.stack([torch.from_numpy(np.array(picture)) for picture in made]).movedim(-1, 1)
    torch.testing.assert_close(images, wanted / 127.5 - 1, atol=0.02, rtol=0)


def test_a_class_generator_needs_no_text(small_world, run_stage):
    artifact, stats = evaluate(small_world, run_stage, "class_generator", guidance=(1.0,))
    assert "eval/recognised_cfg_1" in stats
    assert "labels" in Evaluation.read(artifact).lead


def test_a_generator_that_is_asked_for_nothing_is_not_judged_by_what_validation_images_show(
    small_world, run_stage, tmp_path
):
    (tmp_path / "clip.safetensors").touch()  # is not opened
    settings = {"guidance": (1.0,), "clip_weights": str(tmp_path / "clip.safetensors")}
    artifact, stats = evaluate(small_world, run_stage, "free_generator", **settings)
    assert not [name for name in stats if "recognised" in name or "own_picture" in name or "clip" in name]
    evaluation = Evaluation.read(artifact)
    names = " ".join(score.name for score in evaluation.scores)
    assert "Frechet distance" in names and "Recognised" not in names
    assert any("asked for nothing" in note for note in evaluation.notes)
    assert evaluation.lead.startswith("12 times, ")


def test_a_text_generator_without_its_language_model_is_refused(small_world, run_stage):
    with pytest.raises(ValueError, match=r"evaluate_generator\.text_encoder"):
        evaluate(small_world, run_stage)
    with pytest.raises(ValueError, match="guidance"):
        EvaluateGeneratorConfig(guidance=())


def test_the_configuration_knows_every_solver():
    assert get_args(SolverName) == SOLVERS
