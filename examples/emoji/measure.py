"""How well a model makes emoji: the truth of every prompt is known, so pixels can be judged by it.

    python -m examples.emoji.measure MODEL [out=emoji_figures] [prompts=200] [seed=1] [guidance=2.5]

MODEL is a published folder or a hub id. Writes `figures.json`, and for each kind of prompt the first forty,
as a seed chose them: `prompts_*.webp` (asked for, made, nearest training picture), `plain_*.webp` and
`reconstructions_*.webp`. Of captions, "new" are new scenes of what training knows, "combination" and "emoji"
are held out. A model without a generator is asked for reconstructions alone.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from examples.emoji.compose import PLACES, composed, plain
from examples.emoji.judge import Album, look, nearest, place_of, small
from examples.emoji.pictures import Emoji, load
from examples.emoji.scene import Scene, drawn
from pipelines.reports.pictures import Row, grid
from reptok.data.transforms import to_uint8
from reptok.pipeline import RepTokPipeline
from reptok.pretrained import load_pretrained

Figures = dict[str, float]
SHOWN = 40
STEPS, DECODER_STEPS = 25, 8
TRAINING = 6_000
"""Composed training pictures among which a sample's nearest is looked for, as `experiment=zoo_emoji` has."""
_THIRDS = {0.0: 0, 0.5: 1, 1.0: 2}


def share(right: Sequence[bool] | np.ndarray, name: str) -> Figures:
    """A share in percent, its standard error, and of how many; nothing of none."""
    if not len(right):
        return {}
    p, n = float(np.mean(right)), len(right)
    return {name: 100 * p, f"{name}_se": 100 * math.sqrt(p * (1 - p) / n), f"{name}_n": n}


def decibels(pictures: np.ndarray, others: np.ndarray, name: str) -> Figures:
    """Mean PSNR in dB of pictures, uint8 (B, S, S, 3) twice, and its standard error."""
    error = (pictures.astype(np.float64) - others).reshape(len(pictures), -1)
    psnr = 10 * np.log10(255**2 / np.maximum((error**2).mean(1), 1e-3))
    return {name: psnr.mean(), f"{name}_se": psnr.std(ddof=1) / math.sqrt(len(psnr)), f"{name}_n": len(psnr)}


def judged(scenes: Sequence[Scene], pictures: np.ndarray, prefix: str) -> Figures:
    """Shares of composed pictures whose ground, number and places are those of their scenes."""
    seen = [look(picture) for picture in pictures]
    pairs = list(zip(scenes, seen, strict=True))
    figures = share([s.ground == at.ground for s, at in pairs], f"{prefix}/ground")
    figures |= share([len(s.items) == at.count for s, at in pairs], f"{prefix}/count")
    figures |= share([s.relation == at.relation for s, at in pairs if s.relation], f"{prefix}/relation")
    placed = [
        at.count > 0 and place_of(at) == tuple(_THIRDS[share] for share in PLACES[s.place])
        for s, at in pairs
        if s.place
    ]
    return figures | share(placed, f"{prefix}/place")


def made(pipe: RepTokPipeline, prompts: Sequence[str], guidance: float, seed: int) -> np.ndarray:
    """One sample for each prompt, uint8 (N, S, S, 3)."""
    pictures = pipe(
        list(prompts), cfg_scale=guidance, num_steps=STEPS, decoder_steps=DECODER_STEPS, seed=seed
    )
    return np.stack([np.asarray(picture) for picture in pictures])


def floats(pictures: np.ndarray) -> torch.Tensor:
    """Pictures uint8 (N, S, S, 3) as a model reads them, (N, 3, S, S) in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1


@torch.no_grad()
def reconstructed(pipe: RepTokPipeline, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pictures, uint8 (N, S, S, 3), through the autoencoder alone and through the token."""
    images = floats(pictures)
    alone, token = [], []
    for number, part in enumerate(images.split(64)):
        tokenizer = pipe.tokenizer
        alone.append(to_uint8(tokenizer.autoencoder.decode(tokenizer.autoencoder.encode(part))))
        seeds = [64 * number + i for i in range(len(part))]
        token.append(to_uint8(tokenizer.reconstruct(part, num_steps=DECODER_STEPS, seed=seeds)))
    return np.concatenate(alone), np.concatenate(token)


def measure(pipe: RepTokPipeline, out: Path, prompts: int, seed: int, guidance: float) -> Figures:
    """Take all figures and write the pictures into `out`."""
    size = pipe.tokenizer.image_size
    pictures = load()
    album = Album.of(pictures, size)
    number = {emoji: place for place, emoji in enumerate(pictures)}
    rng = np.random.default_rng(seed)
    figures: Figures = {}
    for name, held_out in (("known", False), ("held_out", True)):
        chosen = _some([e for e in pictures if e.held_out == held_out], prompts, rng)
        right = np.array([number[emoji] for emoji in chosen])
        real = drawn(plain(chosen), size)
        alone, token = reconstructed(pipe, real)
        figures |= decibels(real, alone, f"{name}/autoencoder_psnr")
        figures |= decibels(real, token, f"{name}/token_psnr")
        figures |= share(album.nearest(token) == right, f"{name}/reconstruction_recognised")
        lines = {"original": real, "autoencoder": alone, "one token": token}
        _sheet(out / f"reconstructions_{name}.webp", [emoji.name for emoji in chosen], lines)
        if pipe.generator is None:
            continue
        samples = made(pipe, [emoji.name for emoji in chosen], guidance, seed)
        figures |= share(album.nearest(samples) == right, f"{name}/recognised")
        figures |= share([look(sample).ground == "white" for sample in samples], f"{name}/ground")
        _sheet(out / f"plain_{name}.webp", [e.name for e in chosen], {"asked for": real, "made": samples})
    if pipe.generator is not None:
        figures |= measured_prompts(pipe, out, prompts, seed, guidance)
    (out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    return figures


def measured_prompts(pipe: RepTokPipeline, out: Path, prompts: int, seed: int, guidance: float) -> Figures:
    """What is made of captions of composed scenes, by kind."""
    pictures, size = load(), pipe.tokenizer.image_size
    figures: Figures = {}
    training = list(composed(pictures, TRAINING, 0, "train"))
    looks = small(drawn(training, size))
    kinds = {"new": list(composed(pictures, prompts, seed + 1000, "train"))}
    held = list(composed(pictures, 2 * prompts, seed + 1000, "val"))
    kinds |= {kind: [s for s in held if s.held_out == kind] for kind in ("combination", "emoji")}
    for kind, scenes in kinds.items():
        real = drawn(scenes, size)
        samples = made(pipe, [scene.caption for scene in scenes], guidance, seed)
        figures |= judged(scenes, real, f"{kind}/drawn")
        figures |= judged(scenes, samples, kind)
        close = nearest(small(samples[:SHOWN]), looks)
        known = drawn([training[i] for i in close], size)
        _sheet(
            out / f"prompts_{kind}.webp",
            [scene.caption for scene in scenes],
            {"asked for": real, "made": samples, "nearest in training": known},
        )
    return figures


def _some(emoji: Sequence[Emoji], count: int, rng: np.random.Generator) -> list[Emoji]:
    """So many of them, or all, in an order of chance."""
    return [emoji[i] for i in rng.permutation(len(emoji))[:count]]


def _sheet(file: Path, captions: Sequence[str], columns: dict[str, np.ndarray]) -> None:
    """The first `SHOWN` pictures of each column, a row each."""
    rows = [
        Row(images=[Image.fromarray(pictures[i]) for pictures in columns.values()], label=caption)
        for i, caption in enumerate(captions[:SHOWN])
    ]
    grid(rows, [(title, 1) for title in columns], tile=96, label_width=320).save(
        file, lossless=False, quality=85
    )


def main(arguments: list[str]) -> int:
    """The command line; 0, or 2 for wrong use."""
    settings = {"out": "emoji_figures", "prompts": "200", "seed": "1", "guidance": "2.5"}
    models = [argument for argument in arguments if "=" not in argument]
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    if len(models) != 1 or given.keys() - settings.keys():
        print(__doc__, file=sys.stderr)
        return 2
    settings |= given
    out = Path(settings["out"])
    out.mkdir(parents=True, exist_ok=True)
    figures = measure(
        load_pretrained(models[0]),
        out,
        int(settings["prompts"]),
        int(settings["seed"]),
        float(settings["guidance"]),
    )
    for name, value in figures.items():
        if not name.endswith(("_se", "_n")):
            print(f"{name:34} {value:6.1f} ± {figures[name + '_se']:.1f}  ({figures[name + '_n']:.0f})")
    print(f"figures and pictures in {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
