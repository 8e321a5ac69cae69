"""Weights kept on the way, scored as the end is by the stages of `experiment=evaluate`: a curve."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from pipelines.configuration.compose import load_config
from pipelines.configuration.schema import Config
from pipelines.dag import runner
from pipelines.dag.tracking import TrackingConfig
from pipelines.evaluation.results import Evaluation
from pipelines.stages.publish import Publish, PublishConfig
from pipelines.workflows import build
from reptok.pipeline import RepTokPipeline
from reptok.pretrained import load_generator, load_tokenizer, save_pretrained

STEPS, END = (1000, 2000), 2500
SCORE = "gfd_vit/real_n6"


@pytest.fixture(scope="module")
def model(small_world, tmp_path_factory):
    """A model whose generator at step 1000 is another one, and at step 2000 that of the end."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer, generator = (
        load(small_world[kind].local_path())
        for load, kind in ((load_tokenizer, "tokenizer"), (load_generator, "class_generator"))
    )
    save_pretrained(RepTokPipeline(tokenizer, generator, class_names=["brick", "grass", "sky"]), folder)
    end = load_file(folder / "generator" / "model.safetensors")
    torch.manual_seed(0)
    other = {k: v + torch.randn_like(v) if v.is_floating_point() else v for k, v in end.items()}
    place = folder / "generator" / "checkpoints"
    place.mkdir()
    for step, weights in zip(STEPS, (other, end), strict=True):
        save_file(weights, place / f"step-{step:08d}.safetensors")
    (place / "index.json").write_text(json.dumps({"kept": list(STEPS), "end": END}))
    return folder


def stages_of(model, tmp_path, tiny_models, *words):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "real.npz", pixels)
    config = load_config(
        Config,
        [
            "experiment=evaluate", f"model={model}", f"root={tmp_path}/runs", "evaluate.samples.images=6",
            "evaluate.samples.generator_steps=2", "evaluate.samples.decoder_steps=1", *words,
            f"evaluate.scores.reference={tmp_path}/real.npz",
            f"evaluate.scores.encoder={tiny_models}/encoder",
        ],
    )  # fmt: skip
    return build(config)


def test_every_kept_step_is_scored_as_the_end_is_and_told_with_its_step(
    model, tmp_path, tiny_models, in_process
):
    from mlflow import MlflowClient

    root, tracking = str(tmp_path / "runs"), TrackingConfig(experiment="curve")
    alone = runner.run(stages_of(model, tmp_path, tiny_models), root=root, tracking=tracking, chain=False)
    (before,) = (r for r in alone if r.name == "score_samples")
    results = {
        r.name: r
        for r in runner.run(
            stages_of(model, tmp_path, tiny_models, "kept=true"), root=root, tracking=tracking, chain=False
        )
    }
    assert not [r.error for r in results.values() if r.error]
    assert {name for name, r in results.items() if r.action == "skip"} == {r.name for r in alone}, (
        "the end is what experiment=evaluate made of it, and nothing is looked at twice"
    )
    scores = {step: results[f"score_samples_step_{step}"].stats[SCORE] for step in STEPS}
    scores[END] = before.stats[SCORE]
    assert scores[2000] == pytest.approx(scores[END], rel=1e-6) != pytest.approx(scores[1000], rel=1e-3)

    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    experiment = client.get_experiment_by_name("curve").experiment_id
    (run,) = client.search_runs([experiment], "tags.stage = 'draw_curve'")
    told = {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, SCORE)}
    assert told == pytest.approx(scores)
    parent = client.get_run(run.data.tags["mlflow.parentRunId"])
    assert parent.data.metrics[f"score_samples/{SCORE}"] == pytest.approx(scores[END])
    assert not [name for name in parent.data.metrics if "step" in name]

    curve = results["draw_curve"].artifact
    (found,) = (score for score in Evaluation.read(curve).scores if score.name == SCORE)
    assert found.value == pytest.approx(scores[END])
    assert found.baselines == pytest.approx({f"step {step}": scores[step] for step in STEPS})
    rows = json.loads(curve.read_bytes("curve.json"))
    assert [row["scores"][SCORE]["seeds"] for row in rows] == [[pytest.approx(v)] for v in scores.values()]
    assert b"step 1000" in curve.read_bytes("curve.html")
    with Image.open(curve.local_path("curve.webp")) as picture:
        assert np.asarray(picture.convert("RGBA"))[..., 3].any()


def test_what_has_no_curve_is_told_before_anything_runs(model, tmp_path, tiny_models):
    with pytest.raises(ValueError, match=r"kept=true: .*train\.tokenizer\.keep_every=N"):
        stages_of(model, tmp_path, tiny_models, "kept=true", "evaluate.scores.task=reconstruction")
    with pytest.raises(ValueError, match="kept=true needs protocol="):
        words = ["experiment=evaluate", f"model={model}", "kept=true", "evaluate.samples.images=6"]
        build(load_config(Config, words))


def test_a_published_model_brings_what_its_trainings_kept(model, small_world, run_stage, make_artifact):
    def write(out):
        out.publish_folder(model / "generator")

    inputs = {kind: small_world[kind] for kind in ("dataset", "tokenizer")}
    inputs["generator"] = make_artifact("generator", write)
    artifact, _ = run_stage(Publish(PublishConfig(), ()), inputs, "published")
    names = [f"generator/checkpoints/step-{step:08d}.safetensors" for step in STEPS]
    assert artifact.files("*/checkpoints/*") == ["generator/checkpoints/index.json", *names]
    kept = model / "generator" / "checkpoints" / "step-00001000.safetensors"
    assert artifact.read_bytes(names[0]) == kept.read_bytes()
