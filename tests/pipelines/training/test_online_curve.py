"""Quality over a training's steps as the tracking server has it: with steps, by averaged weights, of N."""

import numpy as np
import pytest
import torch

from pipelines.dag import runner
from pipelines.dag.stage import Stage
from pipelines.dag.tracking import TrackingConfig
from pipelines.stages.training import train_and_publish
from reptok.data.loader import TokenizerData
from reptok.metrics.reconstruction import psnr
from reptok.pretrained import load_tokenizer
from reptok.training.config import OptimConfig, TrainConfig
from reptok.training.tokenizer import TokenizerTraining
from tests.fixtures.trainings import tokenizer, write_data

TRAIN = TrainConfig(
    steps=5, batch_size=4, optim=OptimConfig(lr=1e-2, eps=1e-2, warmup_steps=2), ema_decay=0.5,
    log_every=5, eval_every=2, score_samples=2, launcher="process",
)  # fmt: skip


def test_each_validation_leaves_a_point_with_its_step(tmp_path, small_dataset, tiny_models):
    from mlflow import MlflowClient

    data = write_data(tmp_path / "data", small_dataset, tiny_models)
    training = TokenizerTraining(
        train=TRAIN, tokenizer=tokenizer(tiny_models).config, dataset=data / "dataset",
        latents=data / "latents",
    )  # fmt: skip

    class Train(Stage):
        name, output = "train_tokenizer", "tokenizer"

        def run(self, inputs, out):
            return train_and_publish(training, out)

    root = str(tmp_path / "runs")
    (result,) = runner.run([Train(TRAIN)], root=root, tracking=TrackingConfig(experiment="online"))
    assert not result.error, result.error
    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    experiment = client.get_experiment_by_name("online").experiment_id
    (run,) = client.search_runs([experiment], "tags.stage = 'train_tokenizer'")
    points = client.get_metric_history(run.info.run_id, "online/psnr_ema_n2")
    told = {point.step: point.value for point in points}
    assert sorted(told) == [2, 4, 5] and len(points) == 3
    history = result.artifact.read_json("history.json")
    noted = {entry["step"]: entry["online/psnr_ema_n2"] for entry in history if "train/loss" not in entry}
    assert noted == pytest.approx(told), "the report draws the same"

    model = load_tokenizer(result.artifact.local_path())
    split = TokenizerData(data / "dataset", data / "latents", "val")
    images = split.read(np.array([0, 2]), np.zeros(2, bool)).images.permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        made = model.reconstruct(images, num_steps=20, seed=[0, 2])
    assert told[5] == pytest.approx(psnr(made, images).mean().item(), abs=1e-3), "by what is published"
