"""Pictures of what a model of emoji has learnt, for pages.

    python -m examples.emoji.figures MODEL [out=emoji_pictures] [seed=1]

MODEL is a published folder or a hub id. Writes `overview.webp` (pictures and what their token keeps, two
interpolations, samples by name), `tokens.webp`, `interpolation.webp` and `arithmetic.webp`; of a model with a
generator `names.webp` and `guidance.webp`, too.
What is asked for is drawn by lot, and the seed is the first one: names from those that training knew,
everything else from what it never saw.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from examples.emoji.compose import composed, plain
from examples.emoji.measure import DECODER_STEPS, STEPS, floats, reconstructed
from examples.emoji.pictures import Emoji, load
from examples.emoji.scene import Item, Scene, drawn, stands_out
from pipelines.reports.pictures import Row, grid, stack
from reptok.data.transforms import to_uint8
from reptok.pipeline import RepTokPipeline
from reptok.pretrained import load_pretrained

GUIDANCE = 2.5
SCALES = (1.0, 1.5, 2.0, 3.0, 5.0)
FRAMES = 7
SIDE = 0.6
"""Side of the single emoji of `arithmetic`, as a share of the picture."""


def images_of(pictures: Sequence[np.ndarray] | np.ndarray) -> list[Image.Image]:
    """Pictures uint8 (N, S, S, 3) for a grid."""
    return [Image.fromarray(picture) for picture in pictures]


def sampled(pipe: RepTokPipeline, prompts: Sequence[str], seed: int, guidance: float) -> list[Image.Image]:
    """A picture for each prompt, all from the noise of one seed."""
    return pipe(
        list(prompts), cfg_scale=guidance, num_steps=STEPS, decoder_steps=DECODER_STEPS,
        seed=[seed] * len(prompts),
    )  # fmt: skip


@torch.no_grad()
def decoded(pipe: RepTokPipeline, tokens: Tensor, seed: int) -> list[Image.Image]:
    """Pictures of tokens (N, D), all from the noise of one seed."""
    seeds = [seed] * len(tokens)
    return images_of(to_uint8(pipe.tokenizer.detokenize(tokens, num_steps=DECODER_STEPS, seed=seeds)))


def samples(pipe: RepTokPipeline, prompts: Sequence[str], seed: int) -> Image.Image:
    """Prompts and what is made of them, four of each."""
    columns = [sampled(pipe, prompts, seed + i, GUIDANCE) for i in range(4)]
    rows = [Row(images=row, label=prompt) for prompt, *row in zip(prompts, *columns, strict=True)]
    return grid(rows, [("made", 4)], tile=96, label_width=300)


def by_name(pipe: RepTokPipeline, asked: Sequence[Emoji], seed: int) -> Image.Image:
    """Emoji, and one sample each of what their names alone make."""
    names = [emoji.name for emoji in asked]
    lines = {
        "emoji": images_of(drawn(list(plain(asked)), pipe.tokenizer.image_size)),
        "made of its name": sampled(pipe, names, seed, GUIDANCE),
    }
    rows = [Row(images=line, label=name) for name, line in lines.items()]
    return grid(rows, [(name, 1) for name in names], tile=80)


def tokens(pipe: RepTokPipeline, pictures: np.ndarray) -> Image.Image:
    """Pictures, what the autoencoder keeps of them, and what one token does."""
    alone, token = reconstructed(pipe, pictures)
    lines = {"original": pictures, "autoencoder": alone, "one token": token}
    return grid([Row(images=images_of(line), label=name) for name, line in lines.items()], tile=80)


@torch.no_grad()
def interpolation(pipe: RepTokPipeline, firsts: np.ndarray, lasts: np.ndarray, seed: int) -> Image.Image:
    """Between two pictures, the decoded mixtures of their tokens in equal steps."""
    starts, ends = (pipe.tokenizer.tokenize(floats(pictures)) for pictures in (firsts, lasts))
    rows = []
    for first, last, start, end in zip(firsts, lasts, starts, ends, strict=True):
        mixed = torch.stack([start.lerp(end, i / (FRAMES - 1)) for i in range(FRAMES)])
        rows.append(Row(images=[*images_of([first]), *decoded(pipe, mixed, seed), *images_of([last])]))
    return grid(rows, [("from", 1), ("mixtures of two tokens", FRAMES), ("to", 1)], tile=80)


def sums(pictures: Sequence[Emoji], rng: Random, count: int) -> list[tuple[Scene, Scene, Scene, Scene]]:
    """Scenes a, b, c and d such that a is to b as c is to d: an emoji that moves, or on another ground."""
    found: list[tuple[Scene, Scene, Scene, Scene]] = []
    known = [emoji for emoji in pictures if not emoji.held_out]
    while len(found) < count:
        first, second = rng.sample(known, 2)
        if len(found) % 2:
            places = [(0.28, "white"), (0.72, "white")]
            four = [_at(emoji, x, ground, 0.42) for emoji in (first, second) for x, ground in places]
        else:
            grounds = rng.sample(["blue", "red", "green", "yellow", "purple", "white"], 2)
            four = [_at(emoji, 0.5, ground, SIDE) for emoji in (first, second) for ground in grounds]
        if all(stands_out(item.emoji, scene.ground) for scene in four for item in scene.items):
            found.append((four[0], four[1], four[2], four[3]))
    return found


def _at(emoji: Emoji, x: float, ground: str, side: float) -> Scene:
    return Scene((Item(emoji, x, 0.5, side),), ground)


@torch.no_grad()
def arithmetic(
    pipe: RepTokPipeline, four: Sequence[tuple[Scene, Scene, Scene, Scene]], seed: int
) -> Image.Image:
    """The token of b minus that of a plus that of c, decoded, beside the picture d that it should be."""
    parts = [drawn(scenes, pipe.tokenizer.image_size) for scenes in zip(*four, strict=True)]
    a, b, c = (pipe.tokenizer.tokenize(floats(pictures)) for pictures in parts[:3])
    found = decoded(pipe, b - a + c, seed)
    first, second, third, wanted = (images_of(pictures) for pictures in parts)
    rows = [Row(images=row) for row in zip(second, first, third, found, wanted, strict=True)]
    columns = [("token of", 1), ("- that of", 1), ("+ that of", 1), ("gives", 1), ("wanted", 1)]
    return grid(rows, columns, tile=80)


def guidance(pipe: RepTokPipeline, prompts: Sequence[str], seed: int) -> Image.Image:
    """The same prompts and noise at several scales of guidance."""
    columns = [sampled(pipe, prompts, seed, scale) for scale in SCALES]
    rows = [Row(images=row, label=prompt) for prompt, *row in zip(prompts, *columns, strict=True)]
    return grid(rows, [(f"{scale:g}", 1) for scale in SCALES], tile=96, label_width=300)


def draw_all(pipe: RepTokPipeline, out: Path, seed: int) -> None:
    """Write all pictures into `out`."""
    pictures, rng = load(), Random(seed)
    size = pipe.tokenizer.image_size
    unseen = list(composed(pictures, 60, seed + 2000, "val"))
    held_out = list(plain(rng.sample([emoji for emoji in pictures if emoji.held_out], 12)))
    rebuilt = drawn([*held_out[:8], *unseen[:4]], size)
    ends = drawn(held_out[8:], size), drawn(held_out[4:8], size)
    made = {
        "tokens": tokens(pipe, rebuilt),
        "interpolation": interpolation(pipe, *ends, seed),
        "arithmetic": arithmetic(pipe, sums(pictures, rng, 6), seed),
    }
    overview = [made["tokens"], interpolation(pipe, *(part[:2] for part in ends), seed)]
    if pipe.generator is not None:
        asked = rng.sample([emoji for emoji in pictures if not emoji.held_out], 12)
        names = [emoji.name for emoji in asked]
        made["names"] = samples(pipe, names, seed)
        overview.append(by_name(pipe, asked, seed))
        made["guidance"] = guidance(pipe, names[:6], seed)
    made["overview"] = stack(overview)
    for name, picture in made.items():
        picture.save(out / f"{name}.webp", lossless=False, quality=88)


def main(arguments: list[str]) -> int:
    """The command line; 0, or 2 for wrong use."""
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    models = [argument for argument in arguments if "=" not in argument]
    if len(models) != 1 or given.keys() - {"out", "seed"}:
        print(__doc__, file=sys.stderr)
        return 2
    out = Path(given.get("out", "emoji_pictures"))
    out.mkdir(parents=True, exist_ok=True)
    draw_all(load_pretrained(models[0]), out, int(given.get("seed", "1")))
    print(f"pictures in {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
