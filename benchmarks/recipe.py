"""Images per second, MFU and memory of a recipe's trainings on this device, on random data.

python -m benchmarks.recipe [part=tokenizer|generator|both] [experiment=demo] [key=value ...]

What is measured is one process's share of the batch, a minute for each training. No data set, no weights, no
Ray: a path that the recipe demands may be any (data.folder=-).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.configuration.compose import load_config
from pipelines.configuration.schema import Config
from reptok.configs import RepTokConfig
from reptok.training.config import TrainConfig

if TYPE_CHECKING:
    from reptok.bench.measure import Measured

PARTS = ("tokenizer", "generator")


def main(arguments: Sequence[str]) -> int:
    """The command line; 0, or 2 for wrong use."""
    chosen = [a.removeprefix("part=") for a in arguments if a.startswith("part=")]
    part = chosen[-1] if chosen else "both"
    try:
        if part not in (*PARTS, "both"):
            raise ValueError(f"part is {', '.join(PARTS)} or both, not {part!r}")
        config = load_config(Config, [a for a in arguments if not a.startswith("part=")])
        trained = PARTS if config.tokenizer == "reptok" else ("generator",)
        if part not in (*trained, "both"):
            raise ValueError(f"experiment={config.experiment} trains no {part}")
        for name in trained if part == "both" else (part,):
            measure(config, name)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def measure(config: Config, part: str, seconds: float = 20.0) -> Measured:
    """Measure one of the recipe's trainings on the first GPU, or on the CPU in float32.

    Args:
        config: The recipe.
        part: "tokenizer" or "generator".
        seconds: Duration of the timed steps.
    """
    from reptok import flops
    from reptok.bench.recipe import bench_training, default_device
    from reptok.bench.trainings import Settings, generator_training, tokenizer_training

    train: TrainConfig = getattr(config.train, part)
    device = default_device()
    on_gpu = device.type == "cuda"
    settings = Settings(
        device=device,
        batch_size=max(1, train.batch_size // max(1, train.workers)),
        precision=train.precision if on_gpu else "float32",
        compile=train.compile and on_gpu,
        recompute=train.recompute,
        accumulate=train.accumulate,
    )
    name = f"{config.experiment}, {part}"
    if part == "tokenizer":
        tokenizer = RepTokConfig(encoder=config.encoder, decoder=config.decoder, autoencoder=config.vae)
        draws = config.train.draws
        return bench_training(
            name,
            lambda settings: tokenizer_training(tokenizer, settings, draws=draws),
            flops.tokenizer_training(tokenizer, draws=draws),
            settings,
            seconds=seconds,
            say=print,
        )
    length = config.text_encoder.max_length if config.text_encoder else 0
    return bench_training(
        name,
        lambda settings: generator_training(config.generator, settings, text_length=length),
        flops.generator_training(config.generator, text_length=length),
        settings,
        seconds=seconds,
        say=print,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
