"""The figures of a model are taken of what it makes, and its pictures are written."""

import json

import numpy as np
from PIL import Image

from examples.emoji import measure


def test_an_untrained_model_is_told_as_one(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(measure, "TRAINING", 40)
    assert measure.main([str(model), f"out={tmp_path}", "prompts=6", "seed=3"]) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    for name in ("known", "held_out"):
        assert figures[f"{name}/autoencoder_psnr"] > 22, "the autoencoder is a trained one"
        assert figures[f"{name}/token_psnr"] < 15, "the decoder is not"
        assert figures[f"{name}/recognised_n"] == 6
    assert figures["new/drawn/ground"] == figures["emoji/drawn/ground"] == 100
    assert figures["combination/ground"] < 60 and figures["combination/ground_n"] == 6
    assert "known/autoencoder_psnr" in capsys.readouterr().out
    with Image.open(tmp_path / "prompts_combination.webp") as sheet:
        assert sheet.height > 6 * 90 and np.asarray(sheet.convert("RGB")).std() > 20


def test_wrong_use_says_how(capsys):
    assert measure.main([]) == measure.main(["model", "colour=red"]) == 2
    assert "python -m examples.emoji.measure MODEL" in capsys.readouterr().err
