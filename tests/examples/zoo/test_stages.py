"""The three stages that train the foundations, with recipes small enough to run in seconds."""

import pytest
import torch
from diffusers import AutoencoderKL
from transformers import AutoTokenizer, CLIPTextModel

from examples.zoo.recipes import AutoencoderRecipe, EncoderPhase, EncoderRecipe, TextEncoderRecipe
from examples.zoo.stages import PretrainEncoder, TrainAutoencoder, TrainTextEncoder
from pipelines.dag.artifact import Artifact
from pipelines.dag.workspace import Workspace
from reptok.configs import EncoderConfig
from reptok.encoder.ssl import build_encoder


def run(stage, folder, **inputs):
    out = Workspace(str(folder))
    stats = stage.run(inputs, out)
    out.remove_scratch()
    out.publish({"stage": stage.name, "stats": dict(stats), "fingerprint": "0" * 16})
    return stats


def test_the_autoencoder_is_a_diffusers_folder(tmp_path):
    recipe = AutoencoderRecipe(
        block_out_channels=(8, 16, 24, 32), crops_per_subject=8, validation_per_subject=2, steps=2
    )
    stats = run(TrainAutoencoder(recipe), tmp_path / "vae")
    assert stats["val_psnr"] > 15
    model = AutoencoderKL.from_pretrained(tmp_path / "vae", torch_dtype=torch.float32)
    assert model.encode(torch.zeros(1, 3, 64, 64)).latent_dist.mean.shape == (1, 4, 8, 8)


@pytest.mark.usefixtures("no_other_process")
def test_the_encoder_is_a_timm_folder_and_the_text_encoder_a_transformers_folder(tmp_path):
    small = {"crops_per_subject": 4}
    phases = (EncoderPhase(steps=1), EncoderPhase(steps=2, kept_share=0.5))
    recipe = EncoderRecipe(
        width=48,
        depth=1,
        batch_size=4,
        prototypes=8,
        bank_per_subject=2,
        queries_per_subject=1,
        phases=phases,
        **small,
    )
    stats = run(PretrainEncoder(recipe), tmp_path / "encoder")
    assert 0 <= stats["knn"] <= 1
    encoder = build_encoder(
        EncoderConfig(
            name="folder", path=str(tmp_path / "encoder"), image_size=64, token="cls", trainable="cls"
        )
    )
    assert encoder.dim == 48

    text = TextEncoderRecipe(width=16, layers=1, heads=2, steps=2, batch_size=8, **small)
    run(
        TrainTextEncoder(text),
        tmp_path / "text_encoder",
        encoder=Artifact("encoder", "0" * 16, str(tmp_path / "encoder")),
    )
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "text_encoder")
    model = CLIPTextModel.from_pretrained(tmp_path / "text_encoder", dtype=torch.float32)
    with torch.no_grad():
        states = model(**tokenizer("a cat and a zebra", return_tensors="pt")).last_hidden_state
    assert states.shape == (1, 7, 16)
