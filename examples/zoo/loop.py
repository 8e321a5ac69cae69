"""The one training loop of the zoo's recipes: schedule, progress, curves, and resume after a kill.

A step draws all its randomness from a generator seeded with (seed, step), so that the loop's whole state is
the tensors of its modules and its optimizer: a killed run ends with the weights of an undisturbed one.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from examples.zoo.recipes import Recipe

Log = Callable[[Mapping[str, float], int], None]


# One step's loss and figures, from (step, generator); backward and the optimizer are the loop's.
StepResult = tuple[Tensor, dict[str, Tensor]]
StepFunction = Callable[[int, torch.Generator], StepResult]


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with `count` threads: their number changes the order of sums, so the weights' last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def warmup_cosine(step: int, steps: int, warmup_steps: int, floor: float = 0.01) -> float:
    """Factor of the learning rate: linear warm-up from 0, then half a cosine from 1 down to `floor`."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    share = (step - warmup_steps) / max(1, steps - warmup_steps)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share))


@torch.no_grad()
def ema_update(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the average's parameters towards the model's; buffers are copied."""
    for old, new in zip(average.parameters(), model.parameters(), strict=True):
        old.lerp_(new, 1 - decay)
    for old, new in zip(average.buffers(), model.buffers(), strict=True):
        old.copy_(new)


def train_loop(
    name: str,
    recipe: Recipe,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    step_function: StepFunction,
    *,
    steps: int,
    after_step: Callable[[int], None] = lambda step: None,
    scratch: Path,
    log: Log,
) -> None:
    """Train from the newest checkpoint in `scratch` (or from the start) to the last step.

    Args:
        name: what is trained, for progress lines.
        recipe: warm-up, clipping, seed and rhythm.
        modules: everything that holds trained or averaged tensors, by name.
        optimizer: over the trained parameters; its rates are the schedule's peak.
        step_function: computes the loss of a step.
        steps: length of the training, and of its schedule.
        after_step: called after the optimizer's step (moving averages).
        scratch: folder of the checkpoint.
        log: receives (figures, step).
    """
    scratch.mkdir(parents=True, exist_ok=True)
    path = scratch / "checkpoint.safetensors"
    start = _restore(path, modules, optimizer) if path.exists() else 0
    base_rates = [group["lr"] for group in optimizer.param_groups]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    began = saved = said = time.monotonic()
    for step in range(start, steps):
        for group, rate in zip(optimizer.param_groups, base_rates, strict=True):
            group["lr"] = rate * warmup_cosine(step, steps, recipe.warmup_steps)
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        loss, figures = step_function(step, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
        optimizer.step()
        after_step(step)
        done, now = step + 1, time.monotonic()
        if done % recipe.log_every == 0 or done == steps:
            values = {"loss": loss.item(), "grad_norm": norm.item()}
            values |= {key: value.item() for key, value in figures.items()}
            log({f"train/{key}": value for key, value in values.items()}, done)
            if now - said > 10 or done == steps:
                left = (now - began) / (done - start) * (steps - done)
                text = "  ".join(f"{key} {value:.4f}" for key, value in values.items())
                print(f"{name}: step {done}/{steps}  {text}  {left:.0f} s left", flush=True)
                said = now
        if now - saved > recipe.checkpoint_seconds:
            _save(path, done, modules, optimizer)
            saved = time.monotonic()


def _save(path: Path, step: int, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> None:
    tensors = {f"{name}/{key}": value for name, m in modules.items() for key, value in m.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{key}": value for key, value in state.items()}
    tensors["step"] = torch.tensor(step)
    temporary = path.with_suffix(".partial")
    save_file({key: value.detach().clone().contiguous() for key, value in tensors.items()}, temporary)
    os.replace(temporary, path)


def _restore(path: Path, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> int:
    tensors = load_file(path)
    for name, module in modules.items():
        prefix = f"{name}/"
        module.load_state_dict(
            {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        )
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, index, field = key.split("/")
            state.setdefault(int(index), {})[field] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(tensors["step"])
