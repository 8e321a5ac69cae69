"""How long a training waits for a checkpoint of weights, average and optimiser, against torch.save."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from benchmarks.compare import PAIRS, Comparison
from reptok.configs import DecoderConfig
from reptok.decoder.transformer import Decoder
from reptok.training.checkpoint import Checkpointer
from reptok.training.config import OptimConfig
from reptok.training.state import TrainState

CONFIG = DecoderConfig(width=512, depth=8, heads=8, token_dim=512)


def run(config: DecoderConfig = CONFIG, pairs: int = PAIRS) -> Comparison:
    """Save a state in turns; seconds are those in which the training could not compute."""
    torch.manual_seed(0)
    state = TrainState(Decoder(config), OptimConfig(), ema_decay=0.99)
    with tempfile.TemporaryDirectory() as folder:
        checkpoints, other = Checkpointer(Path(folder) / "ours", state), Path(folder) / "theirs.pt"
        times = []
        for number in range(pairs + 1):
            state.step = number
            mine = _seconds(checkpoints.save)
            checkpoints.wait()  # a training computes meanwhile
            times.append((mine, _seconds(lambda: torch.save(state.tensors(), other))))
        loaded = TrainState(Decoder(config), OptimConfig(), ema_decay=0.99)
        Checkpointer(checkpoints.folder, loaded).load_newest()
        theirs = torch.load(other, weights_only=True)
        for name, tensor in loaded.tensors().items():
            if not torch.equal(tensor, theirs[name]):
                raise RuntimeError(f"{name} was not saved as it is")
    size = sum(tensor.numel() * tensor.element_size() for tensor in state.tensors().values())
    ours, others = (median(side) for side in zip(*times[1:], strict=True))
    return Comparison(
        f"stall of a checkpoint of {size / 1e6:,.0f} MB, seconds on the wall",
        ours,
        others,
        "torch.save",
        median(b / a for a, b in times[1:]),
        "the same tensors read back from both",
    )


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
