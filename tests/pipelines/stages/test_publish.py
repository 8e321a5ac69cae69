from pathlib import Path

import pytest
from huggingface_hub import ModelCard

import reptok
from pipelines.stages.evaluate_generator import EvaluateGenerator, EvaluateGeneratorConfig
from pipelines.stages.evaluate_tokenizer import EvaluateTokenizer, EvaluateTokenizerConfig
from pipelines.stages.publish import Publish, PublishConfig
from reptok.configs import TextEncoderConfig
from reptok.pretrained import load_pretrained
from reptok.training_keys import TrainingKeys


@pytest.fixture
def published(small_world, tiny_models, run_stage):
    """The model artifact and the reports it was made from."""
    text = TextEncoderConfig(kind="clip", path=str(tiny_models / "text_encoder"), max_length=16)
    stages = [
        EvaluateTokenizer(EvaluateTokenizerConfig(images=12, neighbours=5, decoder_steps=2)),
        EvaluateGenerator(
            EvaluateGeneratorConfig(
                neighbours=5, decoder_steps=2, generator_steps=2, shown_samples=1, text_encoder=text
            )
        ),
        Publish(PublishConfig(title="A <i>model</i>", license="mit", text_encoder=text)),
    ]
    made = dict(small_world)
    for stage in stages:
        artifact, _ = run_stage(stage, {kind: made[kind] for kind in stage.inputs}, stage.output)
        made[stage.output] = artifact
    return made


def test_the_published_folder_is_a_whole_model_with_card_and_report(published):
    model = published["model"]
    pipe = load_pretrained(model.local_path())
    pictures = pipe(["a photo of sky"] * 2, num_steps=2, decoder_steps=2, seed=3)
    assert [picture.size for picture in pictures] == [(32, 32)] * 2
    assert reptok.__name__ == "reptok"

    html = model.read_bytes("report.html").decode()
    assert "A &lt;i&gt;model&lt;/i&gt;" in html and "<i>model" not in html
    assert html.count("data:image/webp;base64,") == 9  # four figures of each evaluation, one training curve
    assert 'src="http' not in html and "<script" not in html
    assert "make_dataset" in html and "http 404" in html and "adds up" in html

    card = model.read_bytes("README.md").decode()
    assert "| PSNR |" in card and "No FID" in card
    for line in card.splitlines():
        if line.startswith("!["):
            assert line.split("(")[1].rstrip(")") in model.files("pictures/*")
    data = ModelCard(card).data
    assert (data.license, data.pipeline_tag, data.model_name) == ("mit", "text-to-image", "A <i>model</i>")
    psnr = published["tokenizer_report"].read_json("metrics.json")["metrics"]["eval/psnr"]
    found = {(result.task_type, result.metric_type): result for result in data.eval_results}
    assert found["image-to-image", "psnr"].metric_value == pytest.approx(psnr, rel=1e-12)
    assert any(task == "text-to-image" for task, _ in found)
    assert not [name for name in model.files() if name.endswith((".bin", ".pt", ".pkl"))]


def test_the_model_knows_its_training_samples_and_no_others(published):
    model, dataset = published["model"], published["dataset"]
    found = TrainingKeys.read(Path(model.local_path()))
    assert (found.dataset, found.samples, found.started_from) == (dataset.fingerprint, 36, "")
    training, validation = ([f"{n:012d}" for n in range(48) if (n % 4 == 0) is val] for val in (False, True))
    assert found.overlap(training).known == 36
    assert found.overlap(validation).known == 0
    assert len(found.looks) == 36


def test_the_data_that_it_was_trained_on_has_a_card_and_metadata(published):
    model, dataset = published["model"], published["dataset"]
    card = model.read_bytes("dataset/README.md").decode()
    assert "| train | 36 | 1 |" in card and "| val | 12 | 1 |" in card and "of 3 classes" in card
    assert "| make&#95;dataset | 50 | 48 | http 404 2 |" in card.replace("make_dataset", "make&#95;dataset")
    assert dataset.fingerprint in card and "Nobody has said under which licence" in card
    metadata = model.read_json("dataset/croissant.json")
    (index,) = [node for node in metadata["distribution"] if node["@id"] == "index.json"]
    assert index["sha256"] == dataset.manifest["files"]["index.json"]["sha256"]
