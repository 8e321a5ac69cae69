"""The first losses of both demo trainings, by the demo's recipe and networks, on a small fixed dataset.

They change when the order of samples, the random numbers, the networks, the losses, the schedule or the
optimiser do. Who means that, runs this file as a program and commits the new numbers.
"""

import json
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipelines.configuration.compose import load_config
from pipelines.configuration.schema import Config
from reptok.configs import RepTokConfig
from reptok.data.loader import GeneratorData, TokenizerData
from reptok.data.stream import Batches
from reptok.generator.generator import TokenGenerator
from reptok.text_encoder import TextEncoder
from reptok.tokenizer import RepTok
from reptok.training.captions import CachedCaptions
from reptok.training.objectives import GeneratorObjective, TokenizerObjective
from reptok.training.parallel import parallelize
from reptok.training.state import TrainState
from reptok.training.step import StepRandom, TrainStep

STEPS = 20
GOLDEN = Path(__file__).parents[2] / "fixtures" / "golden_losses.json"


@pytest.fixture(scope="module")
def losses(tmp_path_factory, small_dataset):
    return all_losses(tmp_path_factory.mktemp("golden"), small_dataset)


@pytest.mark.parametrize("name", ["tokenizer", "tokenizer_with_images", "generator"])
def test_the_first_losses_are_those_that_were_kept(name, losses):
    assert losses[name] == pytest.approx(json.loads(GOLDEN.read_text())[name], rel=2e-5)


def all_losses(folder, small_dataset):
    """The demo's tokenizer trains without images for longer than this: a second one has them from step 10."""
    config = load_config(Config)
    train = config.train.tokenizer
    dataset = small_dataset.write_dataset(folder / "dataset", image_size=config.data.image_size)
    latents, found = folder / "latents", {}
    for name, alone in (("tokenizer", config.train.decoder_first_steps), ("tokenizer_with_images", 10)):
        torch.manual_seed(train.seed)
        parts = RepTokConfig(encoder=config.encoder, decoder=config.decoder, autoencoder=config.vae)
        tokenizer = RepTok(parts)
        if not latents.exists():
            sizes = {"token_dim": config.decoder.token_dim, "latent_size": config.decoder.latent_size}
            small_dataset.write_latents(latents, tokenizer.autoencoder.spec, **sizes)
        data = TokenizerData(dataset, latents)
        weight, draws = config.train.preservation_weight, config.train.draws
        objective = TokenizerObjective(
            tokenizer, weight, train.time_sampling, draws=draws, decoder_first_steps=alone,
            time_loc=train.time_loc, time_scale=train.time_scale,
        )  # fmt: skip
        found[name] = first_losses(objective, train, data)
    train = config.train.generator
    tokens = small_dataset.write_tokens(folder / "tokens", token_dim=config.generator.token_dim)
    torch.manual_seed(train.seed)
    generator = TokenGenerator(config.generator)
    generator.set_token_stats(**load_file(tokens / "token_stats.safetensors"))
    conditioner = generator.reads(config.generator, CachedCaptions(TextEncoder(config.text_encoder)))
    objective = GeneratorObjective(generator, conditioner, train.time_sampling)
    found["generator"] = first_losses(objective, train, GeneratorData(dataset, tokens))
    return found


def first_losses(objective, train, data):
    state = TrainState(objective, train.optim, train.ema_decay)
    step = TrainStep(parallelize(objective), state, train.optim, train.steps, precision=train.precision)
    columns = getattr(objective, "columns", None)
    batches = Batches(
        data, train.batch_size, train.seed, flip=train.flip, window=train.window, columns=columns
    )
    losses = []
    objective.train()
    for batch in batches.stream(0):
        draws = StepRandom(train.seed, state.step, train.batch_size, batches.mine)
        losses.append(step(batch, draws).read()["loss"])
        state.step += 1
        if state.step == STEPS:
            return losses


if __name__ == "__main__":
    sys.path.insert(0, str(GOLDEN.parent))
    import small_dataset

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        kept = all_losses(Path(temporary), small_dataset)
    lines = (f'"{name}": {[round(loss, 6) for loss in values]}' for name, values in kept.items())
    GOLDEN.write_text("{" + ",\n ".join(lines) + "}\n")
