"""A fine-tune from the zoo's model beats the same steps from scratch, on pictures that it never saw."""

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from pipelines import run_all

STEPS = 60
SETTINGS = [
    "data=folder", "generator=mixer_class_tiny", "data.import_images.samples_per_shard=500",
    "tracking=off", "until=evaluate_tokenizer", "train.decoder_first_steps=0", "train.draws=1",
    f"train.tokenizer.steps={STEPS}", "train.tokenizer.batch_size=16", "train.tokenizer.launcher=process",
    "train.tokenizer.workers=1",
    "train.tokenizer.eval_every=0", "train.tokenizer.optim.lr=1e-3", "train.tokenizer.optim.warmup_steps=10",
    "evaluate.tokenizer.images=40", "evaluate.tokenizer.interpolation_pairs=2",
    "evaluate.tokenizer.interpolation_frames=3", "evaluate.tokenizer.reference_tokenizer=",
]  # fmt: skip


def write_letters(folder, count=400):
    """Coloured letters on coloured grounds, by letter."""
    from matplotlib import font_manager

    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 60)
    random = np.random.default_rng(0)
    for number in range(count):
        letter = "ABCD"[number % 4]
        ground, ink = (tuple(int(v) for v in random.integers(0, 256, 3)) for _ in range(2))
        picture = Image.new("RGB", (80, 80), ground)
        ImageDraw.Draw(picture).text(tuple(random.integers(0, 30, 2)), letter, ink, font)
        (folder / letter).mkdir(parents=True, exist_ok=True)
        picture.save(folder / letter / f"{number}.png")


def figures(root, kind):
    """The stats in the manifests of one kind of artifact, by fingerprint."""
    return {
        file.parent.name: json.loads(file.read_text())["stats"]
        for file in root.glob(f"{kind}/*/manifest.json")
    }


@pytest.mark.slow
def test_a_fine_tune_beats_the_same_steps_from_scratch(tmp_path):
    write_letters(tmp_path / "letters")
    root, found = tmp_path / "runs", {}
    for name, init in (("scratch", []), ("zoo", ["init=zoo/reptok"])):
        before = {kind: set(figures(root, kind)) for kind in ("tokenizer", "tokenizer_report")}
        place = [f"data.folder={tmp_path / 'letters'}", f"root={root}"]
        assert run_all.main([*SETTINGS, *place, *init]) == 0
        found[name] = {
            key: value
            for kind in before
            for fingerprint, stats in figures(root, kind).items()
            if fingerprint not in before[kind]
            for key, value in stats.items()
        }
    scratch, zoo = found["scratch"], found["zoo"]
    print({name: (stats["val_loss"], stats["eval/psnr"]) for name, stats in found.items()})
    assert zoo["val_loss"] < 0.95 * scratch["val_loss"]
    assert zoo["eval/psnr"] > scratch["eval/psnr"] + 1
    assert zoo["init_parameters_fresh"] == 0 and "init_parameters_taken" not in scratch
