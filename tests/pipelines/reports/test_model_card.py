"""The card's head, as the hub's own library reads it."""

import pytest
from huggingface_hub import ModelCard

from pipelines.dag.artifact import Artifact
from pipelines.evaluation.results import Evaluation, Score
from pipelines.reports.lineage import Step
from pipelines.reports.model_card import Origin, front_matter, render_card

HOSTILE = 'a: "b" # <script>\n---\nlicense: mit'
ORIGIN = Origin(license="apache-2.0", datasets=("owner/pictures",), base_models=("a/vae", "timm/vit"))


def evaluation(*scores):
    return Evaluation(title="How good", lead="", scores=list(scores), figures=[], notes=[], metrics={})


def step(kind, config):
    artifact = Artifact(kind, "0" * 16, f"/nowhere/{kind}/{'0' * 16}")
    return Step(artifact=artifact, stage=f"make_{kind}", seconds=0, stats={}, config=config, git_commit="")


def test_the_hub_reads_licence_task_data_base_models_and_scores():
    psnr = Score(name="PSNR", value=20.125, unit="dB", images=200, error=0.25)
    fid = Score(name="Frechet distance, frozen encoder", value=23.5)
    broken = Score(name="SSIM", value=float("nan"))
    reports = {"tokenizer_report": evaluation(psnr, broken), "generator_report": evaluation(fid)}
    head = front_matter(HOSTILE, "text-to-image", ORIGIN, reports)
    data = ModelCard(head + "# A model\n").data
    assert (data.license, data.pipeline_tag, data.library_name) == ("apache-2.0", "text-to-image", "reptok")
    assert (data.datasets, data.base_model) == (["owner/pictures"], ["a/vae", "timm/vit"])
    assert data.model_name == HOSTILE
    first, second = data.eval_results
    assert (first.task_type, first.metric_type, first.metric_value) == ("image-to-image", "psnr", 20.125)
    assert first.metric_args == {"images": 200, "standard_error": 0.25}
    assert first.metric_name == "PSNR, N = 200, dB"
    assert (second.task_type, second.metric_value) == ("text-to-image", 23.5)
    assert second.metric_type == "frechet_distance_frozen_encoder" and second.metric_args is None
    assert {first.dataset_type, second.dataset_type} == {"owner/pictures"}


def test_a_model_without_scores_has_a_head_too():
    data = ModelCard(front_matter("m", "image-feature-extraction", Origin(), {}) + "# m\n").data
    assert (data.license, data.eval_results, data.datasets) == ("unknown", None, None)


def test_what_a_model_was_made_from_is_found_in_its_lineage():
    own = {"digest": "5" * 16, "path": "/home/me/text"}
    hub = {"hub": "a/vae", "path": "a/vae"}
    encoder = {"name": "dinov2_vitb14_reg", "path": None}
    steps = [
        step("urls", {"sources": ["hf://datasets/owner/urls/data/*.parquet"]}),
        step("dataset", {"folder": "hf://datasets/other/pictures@main/data", "listing": None}),
        step("tokenizer", {"vae": {"path": hub, "scale": None}, "encoder": encoder}),
        step("generator", {"text_encoder": {"path": own}}),
        step("tokenizer_report", {"judge": {"path": {"hub": "a/judge", "path": "a/judge"}}}),
    ]
    found = Origin.of("mit", steps, {"path": {"hub": "b/text", "path": "b/text"}, "kind": "clip"})
    assert found.datasets == ("owner/urls", "other/pictures")
    assert found.base_models == ("a/vae", "timm/vit_base_patch14_reg4_dinov2.lvd142m", "b/text")
    copied = step("tokenizer", {"encoder": {**encoder, "path": own}})
    assert Origin.of("mit", [copied], None).base_models == ()


@pytest.mark.parametrize(
    ("origin", "rows"),
    [
        (ORIGIN, ["licence | apache-2.0", "hub | owner/pictures", "hub | a/vae, timm/vit"]),
        (Origin(), ["licence | not stated", "datasets of the hub | none", "base models of the hub | none"]),
    ],
)
def test_people_read_it_in_the_text(origin, rows):
    text = render_card("m", [], [], "", origin)
    assert all(f"{row} |" in text for row in rows)
