"""The trainings' steps: alone, fed from disk, without a wait, and beside other forms of the same decoder."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reptok import flops
from reptok.bench.clock import time_steps
from reptok.bench.feed import feed, write_latents
from reptok.bench.measure import forget
from reptok.bench.result import Goal, Result
from reptok.bench.sizes import Bench
from reptok.bench.trainings import generator_training, tokenizer_training
from reptok.training.step import products_in


def rate(bound: float) -> Goal:
    """At least so many images a second."""
    return Goal(field="per_second", bound=bound, at_least=True, text=f">= {bound:,.0f} images/s")


def decoder(bench: Bench) -> Iterator[Result]:
    """G1, G11 and G12: the decoder alone, from resident batches and from packed blocks on disk."""
    sizes = bench.sizes
    found = bench.measure(
        lambda settings: tokenizer_training(sizes.tokenizer, settings, images=False), sizes.batch
    )
    row = bench.row("G1", "decoder step, cached latents and tokens", found, rate(450))
    yield row
    memory = Goal(field="allocated_bytes", bound=60e9, at_least=False, text="<= 60 GB at batch 64")
    yield replace(row, name="G11", what="its peak memory, no recomputation", goal=memory)
    with tempfile.TemporaryDirectory() as folder:
        data = write_latents(Path(folder), sizes.tokenizer.decoder)
        fed = feed(found.training, data, bench.device, seconds=bench.seconds)
    yield Result(
        name="G12",
        what=f"the same from {sum(data.rows):,} samples on disk",
        idle=fed.idle,
        note=f"idle {fed.idle:.2%} of the time, waits for data {fed.waiting:.2%}",
        goal=Goal(field="idle", bound=0.01, at_least=False, text="<= 1 % idle"),
    )


def tokenizer(bench: Bench) -> Iterator[Result]:
    """G2: the `[cls]` gradient too."""
    found = bench.measure(
        lambda settings: tokenizer_training(bench.sizes.tokenizer, settings), bench.sizes.batch
    )
    yield bench.row("G2", "whole tokenizer step, cached latents and targets", found, rate(400))


def mixer(bench: Bench) -> Iterator[Result]:
    """G7 and G8: the mixer by class, from cached tokens; on a GPU as a CUDA graph, too."""
    fast = Goal(field="seconds", bound=9e-3, at_least=False, text="<= 9 ms")
    for name, goal, batch_size in zip(
        ("G7", "G8"), (fast, rate(75_000)), bench.sizes.mixer_batches, strict=True
    ):
        for graphs in (False, True) if bench.device.type == "cuda" else (False,):
            found = bench.measure(
                lambda settings: generator_training(bench.sizes.mixer, settings),
                batch_size,
                cuda_graphs=graphs,
            )
            how = ", replayed as a CUDA graph" if graphs else ""
            yield bench.row(name, f"mixer step, cached tokens{how}", found, goal)
            del found
            forget(bench.device)


def waits(bench: Bench) -> Iterator[Result]:
    """A step of each training in which torch refuses every wait of the host for the GPU."""
    builds = {
        "tokenizer": lambda: tokenizer_training(bench.sizes.tokenizer, bench.settings(2)),
        "mixer": lambda: generator_training(bench.sizes.mixer, bench.settings(2)),
    }
    for name, build in builds.items():
        training = build()
        for _ in range(3):
            training.step(training.batch)
        what, note = f"a {name} step that may not wait", "there is no GPU to wait for"
        if bench.device.type == "cuda":
            torch.cuda.set_sync_debug_mode("error")
            try:
                training.step(training.batch)
                note = "it does not"
            except RuntimeError as error:
                note = f"it waits: {error}"
            finally:
                torch.cuda.set_sync_debug_mode("default")
        yield Result(name="sync", what=what, note=note)


def others(bench: Bench) -> Iterator[Result]:
    """The decoder's forward and backward pass compiled, plain, and as diffusers' DiT of equal sizes."""
    config = bench.sizes.tokenizer.decoder
    batch, device, side = bench.sizes.batch, bench.device, config.latent_size
    latent, target = torch.randn(2, batch, config.latent_channels, side, side, device=device)
    t = torch.rand(batch, device=device)
    token = torch.randn(batch, config.num_tokens, config.width, device=device)

    def row(what: str, network: nn.Module, call: Any, cost: float) -> Result:
        def step() -> None:
            network.zero_grad()
            with products_in(bench.precision, device):
                loss = (call(network) - target).square().mean()
            loss.backward()

        timing = time_steps(step, device, seconds=bench.seconds)
        return Result.of("C10b", what, batch, timing, cost, ceiling=bench.ceiling, peak=bench.peak)

    from reptok.decoder.transformer import Decoder
    from reptok.training.blocks import compile_blocks

    cost = float(flops.decoder_training(config))
    for compiled in (True, False) if bench.compile else (False,):
        with device:
            network = Decoder(config)
        if compiled:
            compile_blocks(network)
        how = "our decoder, forward and backward" + (", compiled" if compiled else ", plain")
        yield row(how, network, lambda net: net(latent, t, token), cost)
        del network
        forget(device)
    if importlib.util.find_spec("diffusers") is None:
        yield Result(
            name="C10b", what="diffusers' DiT of equal depth and width", note="diffusers is not installed"
        )
        return
    from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel

    with device:
        dit: Any = DiTTransformer2DModel(
            num_attention_heads=config.heads, attention_head_dim=config.width // config.heads,
            in_channels=config.latent_channels, out_channels=config.latent_channels,
            num_layers=config.depth, sample_size=side, patch_size=config.patch_size, dropout=0.0,
        )  # fmt: skip
    if bench.compile:
        compile_blocks(dit.transformer_blocks)
    labels = torch.zeros(batch, dtype=torch.long, device=device)
    times = (1000 * t).long()
    yield row(
        "diffusers' DiT of equal depth and width", dit.train(),
        lambda net: net(latent, timestep=times, class_labels=labels).sample, cost * 12 / 13,
    )  # fmt: skip
