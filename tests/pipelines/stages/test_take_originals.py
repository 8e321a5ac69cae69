"""The real images of a protocol: a validation split that the model never saw, COCO by a rule for all."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.crawl.phash import look
from pipelines.dag.shards import WorkerResources
from pipelines.evaluation.coco import choose, digest
from pipelines.evaluation.looking import LookConfig
from pipelines.evaluation.originals import About, Originals, overlap_note
from pipelines.evaluation.reconstructing import ReconstructImagesConfig
from pipelines.evaluation.results import Evaluation
from pipelines.evaluation.sampling import SampleImagesConfig
from pipelines.stages.look_at_images import LookAtReference, LookAtReferenceConfig, LookAtSamples
from pipelines.stages.reconstruct_images import ReconstructImages
from pipelines.stages.sample_images import SampleImages
from pipelines.stages.score_samples import ScoreSamples, ScoreSamplesConfig
from pipelines.stages.take_originals import TakeCoco, TakeCocoConfig, TakeValidation, TakeValidationConfig
from reptok.metrics.sample_files import NpzImages
from reptok.pipeline import RepTokPipeline
from reptok.pretrained import load_generator, load_tokenizer, save_pretrained
from reptok.training_keys import FILE, TrainingKeys

ONE = WorkerResources(workers=1)
SUBJECTS = ["brick", "grass", "sky"]
VALIDATION = [f"{number:012d}" for number in range(0, 48, 4)]


def pixels(artifact):
    parts = [NpzImages(Path(artifact.local_path(name))) for name in artifact.files("*.npz")]
    return torch.cat([batch for part in parts for batch in part.batches(5)])


def lines(artifact):
    return [
        json.loads(line) for f in artifact.files("*.jsonl") for line in artifact.read_bytes(f).splitlines()
    ]


@pytest.fixture
def held_out(small_world, run_stage):
    config = TakeValidationConfig(rows_per_shard=5, workers=ONE)
    return run_stage(TakeValidation(config), {"dataset": small_world["dataset"]}, "held_out")[0]


@pytest.fixture(scope="module")
def folder(small_world, tmp_path_factory):
    """A model by class that says nothing of its training."""
    place = tmp_path_factory.mktemp("model")
    tokenizer = load_tokenizer(small_world["tokenizer"].local_path())
    generator = load_generator(small_world["class_generator"].local_path())
    save_pretrained(RepTokPipeline(tokenizer, generator, class_names=SUBJECTS), place)
    return place


@pytest.fixture
def model(folder):
    yield folder
    (folder / FILE).unlink(missing_ok=True)


def sampled(run_stage, model, originals, name="samples", **settings):
    config = SampleImagesConfig(
        model=str(model), generator_steps=2, decoder_steps=1, rows_per_shard=7, workers=ONE, **settings
    )
    return run_stage(SampleImages(config, originals=True), {"originals": originals}, name)[0]


def test_the_validation_split_is_taken_whole_and_no_training_image(held_out, small_world):
    about, found = About.read(held_out), Originals.read(held_out)
    assert [row.key for row in found.rows] == VALIDATION
    assert about.name == f"own_{small_world['dataset'].fingerprint}"
    assert about.digest == hashlib.sha256("".join(f"{key}\n" for key in VALIDATION).encode()).hexdigest()
    assert found.rows[1].caption == "a photo of <b>grass</b>" and found.rows[1].label == 1
    means = pixels(held_out).float().mean((2, 3))  # picture n has 120 + 2 n more of its subject's colour
    for position, number in enumerate(range(0, 36, 4)):
        assert means[position, number % 3] == pytest.approx(29.5 + 120 + 2 * number, abs=3)


def test_fewer_are_evenly_spread(small_world, run_stage):
    config = TakeValidationConfig(images=3, workers=ONE)
    found, _ = run_stage(TakeValidation(config), {"dataset": small_world["dataset"]}, "few")
    assert [row.key for row in Originals.read(found).rows] == [VALIDATION[0], VALIDATION[6], VALIDATION[11]]


def test_a_model_is_asked_for_what_each_image_shows(held_out, model, run_stage):
    samples = sampled(run_stage, model, held_out, sets=2)
    labels = [number % 3 for number in range(0, 48, 4)]
    assert [row["asked"] for row in lines(samples)] == labels * 2
    assert len(pixels(samples)) == 24


def test_a_model_that_saw_them_is_refused_and_one_that_saw_others_is_not(held_out, model, run_stage):
    (model / FILE).write_bytes(TrainingKeys.of([["x", VALIDATION[3]], ["y"]], "other").as_bytes())
    with pytest.raises(ValueError, match=r"1 of 12 validation images .* are among the training images"):
        sampled(run_stage, model, held_out)
    (model / FILE).write_bytes(TrainingKeys.of([["x", "y"]], "other", started_from="a/b").as_bytes())
    samples = sampled(run_stage, model, held_out, "unseen")
    expected = {"images": 12, "compared": 12, "known": 0, "namesakes": 0, "started_from": "a/b"}
    assert samples.read_json("overlap.json") == expected
    config = ReconstructImagesConfig(model=str(model), workers=ONE, decoder_steps=1)
    (model / FILE).write_bytes(TrainingKeys.of([VALIDATION[:2]], "other").as_bytes())
    with pytest.raises(ValueError, match="2 of 12 validation images"):
        run_stage(ReconstructImages(config, originals=True), {"originals": held_out}, "seen")


def test_other_pictures_by_the_same_names_do_not_count_as_seen(held_out, model, run_stage):
    own = {row.key: look(image.movedim(0, -1).numpy()) for row, image in
           zip(Originals.read(held_out).rows, pixels(held_out), strict=True)}  # fmt: skip

    def saw(looks):
        (model / FILE).write_bytes(TrainingKeys.of([VALIDATION], "other", looks=looks).as_bytes())

    saw(dict(list(own.items())[3:5]))
    with pytest.raises(ValueError, match="12 of 12 validation images"):
        sampled(run_stage, model, held_out)
    saw({key: own[key] ^ (2**64 - 1) for key in VALIDATION[3:5]})
    samples = sampled(run_stage, model, held_out, "others")
    assert samples.read_json("overlap.json")["namesakes"] == 12
    assert "12 have the names of training images and are other pictures" in overlap_note(samples)


def test_the_validation_split_of_the_models_own_dataset_is_not_compared(
    held_out, model, small_world, run_stage
):
    """No training is given it, whatever keys another dataset shares with it."""
    fingerprint = small_world["dataset"].fingerprint
    (model / FILE).write_bytes(TrainingKeys.of([["x"]], fingerprint).as_bytes())
    assert sampled(run_stage, model, held_out).read_json("overlap.json")["compared"] == 12


def test_other_classes_and_sizes_are_refused(small_world, model, run_stage, make_artifact, held_out):
    def other(**settings):
        about = {
            "name": "own_x",
            "side": 32,
            "digest": "",
            "dataset": "x",
            "class_names": SUBJECTS,
            **settings,
        }

        def write(out):
            for name in held_out.files():
                out.write_bytes(name, held_out.read_bytes(name))
            out.write_json("originals.json", about)

        return make_artifact("originals", write, f"other{len(settings)}{sorted(settings)[0]}")

    with pytest.raises(Exception, match="images of 32 px, and those of own_x have 64"):
        sampled(run_stage, model, other(side=64))
    with pytest.raises(
        Exception, match=r"images of its classes .brick, grass, sky., and those of own_x have oth"
    ):
        sampled(run_stage, model, other(class_names=["a", "b", "c"]))


def test_scores_carry_the_datasets_fingerprint_and_what_is_known_of_the_training(
    held_out, model, run_stage, tiny_models, small_world
):
    look = LookConfig(recipe="encoder", name="vit", folder=str(tiny_models / "encoder"), workers=ONE)
    other = LookConfig(recipe="encoder", name="second", folder=str(tiny_models / "encoder"), workers=ONE)
    made = {"samples": sampled(run_stage, model, held_out), "originals": held_out}
    for one in (look, other):
        for stage in (LookAtSamples(one), LookAtReference(LookAtReferenceConfig(look=one), originals=True)):
            inputs = {kind: made[kind] for kind in stage.inputs}
            made[stage.output], stats = run_stage(stage, inputs, stage.output)
            assert stats["rows_out"] == 12
    config = ScoreSamplesConfig(protocol="own", networks=("vit", "second"))
    stage = ScoreSamples(config, originals=True)
    artifact, scores = run_stage(stage, {kind: made[kind] for kind in stage.inputs}, "scores")
    name = f"own_{small_world['dataset'].fingerprint}_n12"
    assert scores[f"gfd_vit/{name}"] == scores[f"gfd_second/{name}"] > 0
    assert {f"recall_vit/{name}", f"precision_second/{name}"} <= scores.keys()
    notes = " ".join(Evaluation.read(artifact).notes)
    assert "Whether the model was trained on some of these images is not known" in notes
    assert About.read(held_out).digest in notes


def test_reconstructions_of_the_split_are_near_their_own_originals(
    held_out, model, run_stage, tiny_models, small_world
):
    config = ReconstructImagesConfig(model=str(model), workers=ONE, decoder_steps=1, seed=7)
    rebuilt, stats = run_stage(ReconstructImages(config, originals=True), {"originals": held_out}, "rebuilt")
    assert stats["rows_out"] == 12
    rows = lines(rebuilt)
    assert [row["seed"] for row in rows] == list(range(7, 19))
    difference = (pixels(rebuilt).float() - pixels(held_out).float()).square().mean((1, 2, 3))
    assert [row["psnr"] for row in rows] == pytest.approx(
        (10 * torch.log10(255**2 / difference)).tolist(), abs=0.1
    )
    look = LookConfig(recipe="encoder", name="vit", folder=str(tiny_models / "encoder"), workers=ONE)
    made = {"samples": rebuilt, "originals": held_out}
    for stage in (LookAtSamples(look), LookAtReference(LookAtReferenceConfig(look=look), originals=True)):
        made[stage.output], _ = run_stage(stage, {kind: made[kind] for kind in stage.inputs}, stage.output)
    config = ScoreSamplesConfig(protocol="own", networks=("vit",), task="reconstruction")
    scoring = ScoreSamples(config, originals=True)
    _, scores = run_stage(scoring, {kind: made[kind] for kind in scoring.inputs}, "scores")
    name = f"own_{small_world['dataset'].fingerprint}_n12"
    assert f"rfd_vit/{name}" in scores and not any(key.startswith("gf") for key in scores), scores


COCO = {
    "images": [{"id": i, "file_name": f"{i:04d}.png", "height": 40, "width": 50} for i in (9, 2, 30, 4)],
    "annotations": [
        {"id": 70, "image_id": 9, "caption": "nine, later"}, {"id": 11, "image_id": 9, "caption": " nine\n"},
        {"id": 12, "image_id": 2, "caption": "two"}, {"id": 13, "image_id": 30, "caption": "thirty"},
        {"id": 14, "image_id": 4, "caption": "four"},
    ],
}  # fmt: skip


@pytest.fixture
def coco(tmp_path):
    """Four pictures of 50 x 40 pixels, each of one grey that is its id."""
    for image in COCO["images"]:
        grey = np.full((40, 50, 3), image["id"], np.uint8)
        (tmp_path / "val").mkdir(exist_ok=True)
        Image.fromarray(grey).save(tmp_path / "val" / image["file_name"])
    (tmp_path / "captions.json").write_text(json.dumps(COCO))
    return tmp_path


def test_cocos_list_follows_from_ids_alone(coco):
    """By ids, or by the SHA-256 of their decimal text: 19.. for 9, 4b.. for 4, 62.. for 30, d4.. for 2."""
    found = choose(coco / "captions.json", "ascending", 3)
    assert [(one.image, one.caption) for one in found] == [(2, "two"), (4, "four"), (9, "nine")]
    hashed = choose(coco / "captions.json", "hashed", 9)
    assert [one.image for one in hashed] == [9, 4, 30, 2]
    shuffled = {key: COCO[key][::-1] for key in COCO}
    (coco / "shuffled.json").write_text(json.dumps(shuffled))
    assert digest(choose(coco / "shuffled.json", "hashed", 9)) == digest(hashed)
    assert digest(hashed) == hashlib.sha256(b"9 11\n4 14\n30 13\n2 12\n").hexdigest()


def test_a_list_of_ones_own_is_taken_in_its_order_and_named(coco, run_stage):
    (coco / "ids.txt").write_text("13\n70\n")
    config = TakeCocoConfig(
        protocol="coco2014_30k", pictures=str(coco / "val"), annotations=str(coco / "captions.json"),
        ids=str(coco / "ids.txt"), workers=ONE,
    )  # fmt: skip
    found, _ = run_stage(TakeCoco(config), {}, "listed")
    assert [row.caption for row in Originals.read(found).rows] == ["thirty", "nine, later"]
    assert About.read(found).name == "coco2014_30k_ids5dc1df6b6bee"  # sha256sum ids.txt
    for content, words in (
        ("13\n99", "names annotation 99"),
        ("11\n70", "an image twice"),
        ("a", "one a line"),
    ):
        (coco / "ids.txt").write_text(content)
        with pytest.raises(ValueError, match=words):
            config.chosen()


def test_cocos_pictures_are_cropped_and_scores_say_how_few_they_are(coco, run_stage):
    config = TakeCocoConfig(
        protocol="coco2017_5k", pictures=str(coco / "val"), annotations=str(coco / "captions.json"),
        rows_per_shard=3, workers=ONE,
    )  # fmt: skip
    found, stats = run_stage(TakeCoco(config), {}, "coco")
    assert stats["rows_out"] == 4
    images = pixels(found)
    assert images.shape == (4, 3, 256, 256)
    assert images.float().mean((1, 2, 3)).tolist() == [2, 4, 9, 30]
    assert About.read(found).name == "coco2017_5k"
    (coco / "val" / "0002.png").unlink()
    with pytest.raises(Exception, match=r"0002\.png"):
        run_stage(TakeCoco(config), {}, "missing")


def test_a_file_that_leads_elsewhere_is_refused(coco):
    odd = {**COCO, "images": [{**image, "file_name": "../x.png"} for image in COCO["images"]]}
    (coco / "captions.json").write_text(json.dumps(odd))
    with pytest.raises(ValueError, match="no name of a file"):
        choose(coco / "captions.json", "hashed", 3)
