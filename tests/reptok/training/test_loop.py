"""The real tokenizer and generator, trained whole and in two halves."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from reptok.configs import (
    AutoencoderConfig,
    DecoderConfig,
    EncoderConfig,
    GeneratorConfig,
    RepTokConfig,
    TextEncoderConfig,
)
from reptok.data.loader import Batches, GeneratorData, TokenizerData
from reptok.generator.generator import TokenGenerator
from reptok.text_encoder import TextEncoder
from reptok.tokenizer import RepTok
from reptok.training.checkpoint import load_newest, save_checkpoint
from reptok.training.conditions import CaptionConditions, label_condition
from reptok.training.config import OptimConfig, TrainConfig
from reptok.training.loop import train
from reptok.training.state import TrainState
from reptok.training.step import GeneratorObjective, NonFiniteError, StepRandom, TokenizerObjective, TrainStep
from reptok.training.validation import segment_losses

STEPS, BATCH = 8, 4  # 11 samples: epochs end inside the third and the sixth batch
CONFIG = TrainConfig(
    steps=STEPS,
    batch_size=BATCH,
    optim=OptimConfig(lr=1e-2, warmup_steps=3, schedule="cosine"),
    ema_decay=0.9,
    log_every=3,
    eval_every=4,
    checkpoint_every_seconds=1e9,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory, small_dataset, tiny_models):
    folder = tmp_path_factory.mktemp("data")
    dataset = small_dataset.write_dataset(folder / "dataset")
    spec = tokenizer(tiny_models).autoencoder.spec
    latents = small_dataset.write_latents(folder / "latents", spec, token_dim=32, latent_size=4)
    tokens = small_dataset.write_tokens(folder / "tokens", token_dim=32)
    return {
        "tokenizer": TokenizerData(dataset, latents),
        "decoder_first": TokenizerData(dataset, latents, images_from=3 * BATCH),
        "generator": GeneratorData(dataset, tokens),
    }


def tokenizer(models: Path) -> RepTok:
    torch.manual_seed(0)
    return RepTok(
        RepTokConfig(
            encoder=EncoderConfig(name="folder", path=str(models / "encoder"), image_size=32),
            decoder=DecoderConfig(width=32, depth=2, heads=2, latent_size=4, token_dim=32),
            autoencoder=AutoencoderConfig(path=str(models / "autoencoder")),
        )
    )


def objective_of(kind: str, models: Path) -> nn.Module:
    if kind in ("tokenizer", "decoder_first"):
        return TokenizerObjective(tokenizer(models), 0.1, "logit_normal")
    torch.manual_seed(0)
    sizes = {"token_dim": 32, "dim": 32, "depth": 2, "heads": 2, "condition_dropout": 0.5}
    if kind == "class":
        generator = TokenGenerator(GeneratorConfig(condition="class", num_classes=3, **sizes))
        return GeneratorObjective(generator, label_condition, "uniform")
    generator = TokenGenerator(GeneratorConfig(condition="text", text_dim=32, **sizes))
    text_encoder = TextEncoder(TextEncoderConfig(path=str(models / "text_encoder"), max_length=16))
    return GeneratorObjective(generator, CaptionConditions(text_encoder), "uniform")


class Training:
    """One process's training of an objective, with its log in a list."""

    def __init__(self, kind: str, models: Path, data: dict, config: TrainConfig = CONFIG):
        self.objective = objective_of(kind, models)
        self.data = data.get(kind, data["generator"])
        self.state = TrainState(self.objective, config.optim, config.ema_decay)
        self.config = config
        self.logged: list[tuple[int, dict]] = []
        self.saved: list[int] = []

    def run(self, until: int) -> "Training":
        batches = Batches(self.data, BATCH, self.config.seed)
        train(
            self.state,
            TrainStep(self.objective, self.state, self.config.optim, STEPS),
            replace(self.config, steps=until),
            batches=batches.stream,
            random=lambda step: StepRandom(self.config.seed, step, BATCH, batches.mine),
            log=lambda values, step: self.logged.append((step, dict(values))),
            save=lambda: self.saved.append(self.state.step),
            evaluate=lambda step: {"val/step": float(step)},
        )
        return self


def same(a: TrainState, b: TrainState) -> bool:
    left, right = a.tensors(), b.tensors()
    return all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("kind", ["tokenizer", "decoder_first", "text", "class"])
def test_a_training_in_two_halves_is_the_whole_bit_by_bit(kind, tiny_models, data, tmp_path):
    whole = Training(kind, tiny_models, data).run(STEPS)
    start = objective_of(kind, tiny_models)
    assert any(not torch.equal(p, dict(start.named_parameters())[n]) for n, p in whole.state.weights.items())
    for half in (2, 3, 5):
        first = Training(kind, tiny_models, data).run(half)
        save_checkpoint(tmp_path / str(half), first.state)
        second = Training(kind, tiny_models, data)
        load_newest(tmp_path / str(half), second.state)
        assert (second.state.step, second.state.samples) == (half, half * BATCH)
        assert same(second.run(STEPS).state, whole.state)


def test_the_rhythm_of_log_evaluation_and_checkpoint(tiny_models, data):
    training = Training("class", tiny_models, data).run(STEPS)
    assert [step for step, values in training.logged if "train/loss" in values] == [3, 6, 8]
    assert [step for step, values in training.logged if "val/step" in values] == [4, 8]
    assert training.saved == [STEPS]
    often = Training("class", tiny_models, data, replace(CONFIG, checkpoint_every_seconds=0.0)).run(3)
    assert often.saved == [1, 2, 3]


def test_the_tokenizer_learns_and_moves_only_what_is_adapted(tiny_models, data):
    training = Training("tokenizer", tiny_models, data)
    frozen = {n: p.clone() for n, p in training.objective.named_parameters() if not p.requires_grad}
    training.run(STEPS)
    losses = [values["train/loss"] for _, values in training.logged if "train/loss" in values]
    assert losses[-1] < losses[0]
    now = dict(training.objective.named_parameters())
    assert frozen and all(torch.equal(value, now[name]) for name, value in frozen.items())
    assert {"train/velocity", "train/preservation", "train/grad_norm"} <= training.logged[0][1].keys()


def test_the_encoder_waits_until_batches_have_images(tiny_models, data):
    training = Training("decoder_first", tiny_models, data)
    embedding = training.objective.tokenizer.encoder.embedding
    before = embedding.clone()
    training.run(3)
    assert torch.equal(embedding, before)
    assert training.logged[0][1]["train/preservation"] == pytest.approx(0, abs=1e-6)
    training.run(STEPS)
    assert not torch.equal(embedding, before)


def test_two_ranks_are_one_process_with_the_whole_batch(tiny_models, data):
    """The mean of the ranks' gradients is the gradient of the whole batch."""

    def gradient(objective: nn.Module, rank: int, world_size: int) -> dict[str, torch.Tensor]:
        batches = Batches(data["tokenizer"], BATCH, 0, rank=rank, world_size=world_size)
        objective.zero_grad()
        objective(batches.read(8), StepRandom(0, 2, BATCH, batches.mine))["loss"].backward()
        return {n: p.grad.clone() for n, p in objective.named_parameters() if p.grad is not None}

    objective = objective_of("tokenizer", tiny_models)
    nn.init.normal_(objective.tokenizer.decoder.patch_out.weight, std=0.1)
    whole = gradient(objective, 0, 1)
    first, second = (gradient(objective, rank, 2) for rank in range(2))
    for name, value in whole.items():
        assert torch.allclose((first[name] + second[name]) / 2, value, rtol=1e-4, atol=1e-6), name


def test_a_step_without_finite_gradient_changes_nothing_and_many_stop(tiny_models, data):
    training = Training("class", tiny_models, data)
    before = {name: tensor.clone() for name, tensor in training.state.tensors().items()}
    batches = Batches(training.data, BATCH, 0)
    batch = batches.read(0)
    batch.tokens[1, 0, 3] = float("nan")
    step = TrainStep(training.objective, training.state, CONFIG.optim, STEPS, max_skipped=3)
    draws = [StepRandom(0, number, BATCH, batches.mine) for number in range(4)]
    assert step(batch, draws[0]) == step(batch, draws[1]) == {"skipped": 1.0}
    after = training.state.tensors()
    assert all(torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(NonFiniteError, match=str(batch.samples[0])):
        step(batch, draws[2])


def test_segment_losses_are_the_losses_at_the_midpoints(tiny_models, data):
    objective = objective_of("class", tiny_models).eval()
    batch = Batches(data["generator"], BATCH, 0).read(0)
    values = segment_losses(objective, [(batch, BATCH)], lambda n, size: StepRandom(9, n, size, slice(size)))
    third = objective(batch, StepRandom(9, 0, BATCH, slice(BATCH)), torch.full((BATCH,), 5 / 16))["loss"]
    assert values["val/loss_segment_2"] == pytest.approx(third.item(), rel=1e-6)
    assert values["val/loss"] == pytest.approx(sum(values[f"val/loss_segment_{k}"] for k in range(8)) / 8)


def test_a_repeated_caption_is_encoded_once(tiny_models):
    class Counting(TextEncoder):
        seen: list[str] = []  # noqa: RUF012

        def forward(self, captions):
            self.seen.extend(captions)
            return super().forward(captions)

    encoder = Counting(TextEncoderConfig(path=str(tiny_models / "text_encoder"), max_length=16))
    conditions = CaptionConditions(encoder, capacity=3)

    class Batch:
        captions = ("a cat", "a red cup", "a cat")

    first = conditions(Batch)
    assert encoder.seen == ["a cat", "a red cup"]
    again = conditions(Batch)
    assert encoder.seen == ["a cat", "a red cup"]
    states, mask = encoder(["a cat", "a red cup", "a cat"])
    assert torch.equal(first.mask, mask) and torch.equal(again.mask, mask)
    assert torch.allclose(first.text[mask], states[mask], atol=1e-5)
