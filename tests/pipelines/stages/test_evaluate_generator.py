import pytest

from pipelines.evaluation.results import Evaluation
from pipelines.stages.evaluate_generator import EvaluateGenerator, EvaluateGeneratorConfig
from reptok.configs import TextEncoderConfig

SMALL = {"neighbours": 5, "decoder_steps": 2, "generator_steps": 4, "shown_samples": 2}


def evaluate(world, run_stage, generator="generator", name="out", **settings):
    inputs = {"dataset": world["dataset"], "tokenizer": world["tokenizer"], "generator": world[generator]}
    return run_stage(EvaluateGenerator(EvaluateGeneratorConfig(**SMALL, **settings)), inputs, name)


@pytest.fixture
def text_encoder(tiny_models):
    return TextEncoderConfig(kind="clip", path=str(tiny_models / "text_encoder"), max_length=16)


def test_a_text_generator_is_judged_beside_real_images(small_world, run_stage, text_encoder):
    artifact, stats = evaluate(small_world, run_stage, text_encoder=text_encoder)
    assert stats["eval/recognised_real"] == 1.0
    for scale in ("1", "1.5"):
        ratio = stats[f"eval/recognised_cfg_{scale}"] / stats["eval/recognised_real"]
        assert stats[f"eval/recognised_ratio_cfg_{scale}"] == pytest.approx(ratio)
        assert stats[f"eval/gfd_vit_cfg_{scale}"] > stats["eval/fd_vit_training_images"]
    evaluation = Evaluation.read(artifact)
    assert evaluation.scores[0].baselines["blind guess"] == pytest.approx(100 / 3)
    assert evaluation.plates[0].file == "samples.webp"


def test_the_batch_size_changes_nothing(small_world, run_stage, text_encoder):
    first, second = (
        evaluate(small_world, run_stage, name=f"b{size}", text_encoder=text_encoder, batch_size=size)[1]
        for size in (5, 12)
    )
    assert first == pytest.approx(second, rel=1e-3, abs=1e-4)


def test_a_class_generator_needs_no_text(small_world, run_stage):
    artifact, stats = evaluate(small_world, run_stage, "class_generator", guidance=(1.0,))
    assert "eval/recognised_cfg_1" in stats
    assert "labels" in Evaluation.read(artifact).lead


def test_a_text_generator_without_its_language_model_is_refused(small_world, run_stage):
    with pytest.raises(ValueError, match=r"evaluate_generator\.text_encoder"):
        evaluate(small_world, run_stage)
    with pytest.raises(ValueError, match="guidance"):
        EvaluateGeneratorConfig(guidance=())
