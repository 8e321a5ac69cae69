"""One training of a recipe on this device: images per second, MFU and memory within a minute."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast, get_args

import torch

from reptok import flops
from reptok.bench.measure import Measured, measure
from reptok.bench.trainings import Settings, Training, generator_training, tokenizer_training
from reptok.configs import EncoderConfig, GeneratorConfig, RepTokConfig
from reptok.decoder.sizes import decoder_size
from reptok.dimensions import ENCODERS
from reptok.throughput import matmul_speed
from reptok.training.config import Precision

SECONDS = 20.0  # of timed steps; as long again for the start, the compilation and the first steps
PARTS = ("tokenizer", "decoder", "generator")
TEXT_DIM, TEXT_HEADS = 768, 20  # of CLIP ViT-L/14, and what divides the mixer's width


def bench_training(
    name: str,
    build: Callable[[Settings], Training],
    flops_per_image: int,
    settings: Settings,
    *,
    seconds: float = SECONDS,
    say: Callable[[str], None],
) -> Measured:
    """Measure and say what was found.

    Args:
        name: What is trained.
        build: Makes the training.
        flops_per_image: Of it; on a slow device decides how small the batch must be.
        settings: Where and how; the batch is one device's share.
        seconds: Duration of the timed steps.
        say: Takes lines of text.
    """
    device = settings.device
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type.upper()}"
    how = f"{settings.precision}, blocks {'compiled' if settings.compile else 'not compiled'}"
    say(f"{name} on {where}, torch {torch.__version__}, {how}, random data")
    ceiling = matmul_speed(device, settings.precision)
    found = measure(build, settings, ceiling, seconds=seconds, flops_per_image=flops_per_image)
    batch, timing = found.training.batch_size, found.timing
    if batch < settings.batch_size:
        say(f"batch {settings.batch_size} is too large for this device or for a minute: {batch} instead")
    memory = "GPU memory" if device.type == "cuda" else "memory of the process"
    say(
        f"batch {batch}: {1e3 * timing.seconds:,.1f} ms a step, {found.images_per_second:,.1f} images/s\n"
        f"{found.flops_per_second / 1e12:,.3g} TFLOP/s of {ceiling / 1e12:,.3g} that a large matrix product "
        f"reaches: MFU {found.utilisation:.1%}, {flops_per_image / 1e9:,.1f} GFLOP an image\n"
        f"{memory} {timing.peak_bytes / 1e9:.1f} GB at most; {timing.steps} steps timed"
    )
    return found


def bench_named(
    part: str,
    size: str,
    encoder: str,
    condition: str,
    device: torch.device,
    batch_size: int,
    precision: str | None = None,
    compiled: bool | None = None,
    *,
    seconds: float = SECONDS,
    say: Callable[[str], None],
) -> Measured:
    """Measure a training of named sizes; see `bench_training`.

    Args:
        part: "tokenizer", "decoder" (the tokenizer's step without the encoder) or "generator" (the paper's).
        size: Of the decoder.
        encoder: Name in `ENCODERS`; gives the token's width.
        condition: Of the generator.
        device: Where.
        batch_size: Samples of a step.
        precision: bfloat16 on a GPU and float32 elsewhere when None.
        compiled: Compile the blocks; on a GPU alone when None.
        seconds: Duration of the timed steps.
        say: Takes lines of text.

    Raises:
        ValueError: A name is unknown.
    """
    on_gpu = device.type == "cuda"
    precision = precision or ("bfloat16" if on_gpu else "float32")
    for name, choices in ((part, PARTS), (precision, get_args(Precision))):
        if name not in choices:
            raise ValueError(f"{name!r} is not one of {', '.join(choices)}")
    settings = Settings(
        device=device,
        batch_size=batch_size,
        precision=cast(Precision, precision),
        compile=on_gpu if compiled is None else compiled,
    )
    if part == "generator":
        classes, text = (1000 if condition == "class" else 0), (TEXT_DIM if condition == "text" else 0)
        heads = TEXT_HEADS if text else 16
        generator = GeneratorConfig(condition=condition, num_classes=classes, text_dim=text, heads=heads)
        cost = flops.generator_training(generator)
        return bench_training(
            f"generator by {condition}",
            lambda settings: generator_training(generator, settings),
            cost,
            settings,
            seconds=seconds,
            say=say,
        )
    config = EncoderConfig(name=encoder)
    if encoder not in ENCODERS:
        raise ValueError(f"{encoder!r} is not one of {', '.join(ENCODERS)}")
    width = ENCODERS[encoder].width
    tokenizer = RepTokConfig(encoder=config, decoder=decoder_size(size, token_dim=width))
    images = part == "tokenizer"
    cost = flops.tokenizer_training(tokenizer) if images else flops.decoder_training(tokenizer.decoder)
    return bench_training(
        f"{part} {size}/{tokenizer.decoder.patch_size}" + (f" with {encoder}" if images else ""),
        lambda settings: tokenizer_training(tokenizer, settings, images=images),
        cost,
        settings,
        seconds=seconds,
        say=say,
    )


def default_device() -> torch.device:
    """Return the first GPU there is, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", 0)
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
