"""A training fed from packed blocks on disk against the same training on one batch in memory."""

from __future__ import annotations

import tempfile
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from benchmarks.compare import Comparison, compare
from reptok.bench.feed import feed, write_latents
from reptok.bench.trainings import Settings, tokenizer_training
from reptok.configs import EncoderConfig, RepTokConfig
from reptok.data.order import WINDOW
from reptok.data.stream import Batches
from reptok.decoder.sizes import decoder_size

SAMPLES, BATCH, STEPS, PAIRS = 12_000, 16, 2, 7
SECONDS = 20.0  # for the share of time spent waiting
CONFIG = RepTokConfig(
    encoder=EncoderConfig(name="random_vits14_reg"), decoder=decoder_size("S", token_dim=384)
)


def run(config: RepTokConfig = CONFIG, samples: int = SAMPLES) -> Comparison:
    """Train the decoder S/2 with AdamW and its average on the CPU, shuffled in a window of 10,000."""
    torch.manual_seed(0)
    device = torch.device("cpu")
    training = tokenizer_training(config, Settings(device=device, batch_size=BATCH), images=False)
    with tempfile.TemporaryDirectory() as folder:
        data = write_latents(Path(folder), config.decoder, samples)
        batches = Batches(data, BATCH, seed=0, window=WINDOW)
        epoch = np.concatenate([batches.order.take(start, BATCH)[0] for start in range(0, samples, BATCH)])
        if len(np.unique(epoch[:samples])) != samples:
            raise RuntimeError("an epoch does not hold every sample once")
        waiting = feed(training, data, device, seconds=SECONDS).waiting
        stream = batches.stream(0)

        def ours() -> None:
            for batch in islice(stream, STEPS):
                training.step(batch)

        def theirs() -> None:
            for _ in range(STEPS):
                training.step(training.batch)

        return compare(
            f"{STEPS} decoder steps S/2, batch {BATCH}, fed from {samples:,} samples on disk",
            ours,
            "the same on one batch in memory",
            theirs,
            f"an epoch holds every sample once; {waiting:.2%} of the time spent waiting for data",
            PAIRS,
        )
