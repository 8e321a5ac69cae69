"""Vision-language captioners: images to sentences (paper, section 4.2: captions by InternVL3-1B).

B images. A caption is a function of its image, prompt and seed alone: batches are padded on the left and
masked, and tokens are drawn with one uniform number per caption and step instead of the process's own
generator.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import AutoProcessor, InternVLForConditionalGeneration, LogitsProcessor

from reptok.configs import VisionLanguageConfig
from reptok.data.tiles import resize_tile, stack_tiles


@dataclass(frozen=True)
class GeneratedCaption:
    """What a model wrote about an image.

    Attributes:
        text: The caption, without special tokens; not judged, not cleaned.
        prompt: What the model was asked.
        seed: Of this caption's random numbers; without a meaning where nothing is drawn.
    """

    text: str
    prompt: str
    seed: int


class Captioner(Protocol):
    """Images to captions, whatever runs the model.

    Attributes:
        tile_size: Side of a tile in pixels.
        revision: Commit of a hub model, or "sha256:" and the digest of a folder's weights.
    """

    tile_size: int
    revision: str

    def __call__(self, images: Sequence[np.ndarray], seeds: Sequence[int]) -> list[list[GeneratedCaption]]:
        """Write `captions_per_image` captions for each image, uint8 (H, W, 3) of any size."""


def load_captioner(
    config: VisionLanguageConfig, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> Captioner:
    """Load the captioner of `config.backend`.

    Raises:
        OSError: Neither a folder with an InternVL nor a hub id within reach.
        ImportError: The backend's package is not installed.
    """
    if config.backend == "vllm":
        from reptok.captioner_vllm import VllmCaptioner

        return VllmCaptioner(config, dtype)
    return InternVLCaptioner(config, device, dtype)


class InternVLCaptioner:
    """An InternVL by transformers, such as `OpenGVLab/InternVL3-1B-hf`."""

    def __init__(
        self, config: VisionLanguageConfig, device: str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        """Load processor and weights, frozen.

        Raises:
            OSError: Neither a folder with an InternVL nor a hub id within reach.
        """
        self.config = config
        self.processor = load_processor(config)
        try:
            model = InternVLForConditionalGeneration.from_pretrained(
                config.path, revision=config.revision or "main", dtype=dtype, use_safetensors=True
            )
        except Exception as error:
            raise OSError(unreachable(config, error)) from error
        self.model = model.to(device).eval().requires_grad_(False)
        self.tile_size = config.image_size or int(model.config.vision_config.image_size[0])
        self.revision = weights_revision(config, getattr(model.config, "_commit_hash", None))
        pixels = self.processor.image_processor
        self._mean = torch.tensor(pixels.image_mean, device=device).view(3, 1, 1)
        self._std = torch.tensor(pixels.image_std, device=device).view(3, 1, 1)

    def __call__(self, images: Sequence[np.ndarray], seeds: Sequence[int]) -> list[list[GeneratedCaption]]:
        """Caption images, uint8 (H, W, 3) of any size; `seeds` are the images' own.

        Raises:
            ValueError: Images and seeds differ in number.
        """
        if len(images) != len(seeds):
            raise ValueError(f"{len(images)} images came with {len(seeds)} seeds; give one for each")
        captions: list[list[GeneratedCaption]] = [[] for _ in images]
        if not images:
            return captions
        pixels, tiles = self.pixels(images)
        for number in range(self.config.captions_per_image):
            prompt = self.config.prompts[number % len(self.config.prompts)]
            own = [caption_seed(seed, number) for seed in seeds]
            texts = self.answer(pixels, tiles, [prompt] * len(images), own)
            for found, text, seed in zip(captions, texts, own, strict=True):
                found.append(GeneratedCaption(text, prompt, seed))
        return captions

    def pixels(self, images: Sequence[np.ndarray]) -> tuple[Tensor, list[int]]:
        """Normalised tiles of some images, one after the other, float (T, 3, S, S); tiles of each image."""
        if self.config.max_tiles == 1:
            tiles = stack_tiles([resize_tile(image, self.tile_size) for image in images])
            values = tiles.to(self.model.device).float() / 255
            return ((values - self._mean) / self._std).to(self.model.dtype), [1] * len(images)
        size = {"height": self.tile_size, "width": self.tile_size}
        cut = self.processor.image_processor(
            list(images), size=size, crop_to_patches=True, max_patches=self.config.max_tiles,
            return_tensors="pt",
        )  # fmt: skip
        counts = [int(count) for count in cut["num_patches"]]
        return cut["pixel_values"].to(self.model.device, self.model.dtype), counts

    def questions(self, prompts: Sequence[str], tiles: Sequence[int]) -> dict[str, Tensor]:
        """Token ids and mask (B, L) of prompts about images of so many tiles, padded on the left."""
        processor = self.processor
        side = self.tile_size // self.model.config.vision_config.patch_size[0]
        seen = int((side * self.model.config.downsample_ratio) ** 2)
        texts = []
        for prompt, count in zip(prompts, tiles, strict=True):
            content = [{"type": "image"}, {"type": "text", "text": prompt}]
            asked = processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
            )
            image = processor.start_image_token + processor.image_token * seen * count
            texts.append(asked.replace(processor.image_token, image + processor.end_image_token, 1))
        tokens = processor.tokenizer(texts, padding=True, padding_side="left", return_tensors="pt")
        names = ("input_ids", "attention_mask")
        return {name: tokens[name].to(self.model.device) for name in names}

    @torch.no_grad()
    def answer(
        self, pixels: Tensor, tiles: Sequence[int], prompts: Sequence[str], seeds: Sequence[int]
    ) -> list[str]:
        """One answer per image to its own prompt; see `pixels`."""
        asked = self.questions(prompts, tiles)
        config, start = self.config, asked["input_ids"].shape[1]
        drawing = []
        if config.temperature > 0:
            drawing = [SeededSampling(seeds, config, start, self.model.device)]
        written = self.model.generate(
            **asked,
            pixel_values=pixels,
            max_new_tokens=config.max_new_tokens,
            do_sample=False,  # whatever is drawn, `SeededSampling` draws
            num_beams=1,
            temperature=None,
            top_p=None,
            top_k=None,
            repetition_penalty=None,
            logits_processor=drawing,
        )
        texts = self.processor.tokenizer.batch_decode(written[:, start:], skip_special_tokens=True)
        return [text.strip() for text in texts]


class SeededSampling(LogitsProcessor):
    """Draw each row's next token with a number of the row's own, and leave no other token a chance.

    The number picks from the nucleus of the tempered distribution by its cumulative sum, in float32.
    """

    def __init__(
        self, seeds: Sequence[int], config: VisionLanguageConfig, start: int, device: torch.device
    ) -> None:
        """Prepare one number per row and step; `start` is the length of what was asked."""
        numbers = [[random.Random(f"{seed}/{step}").random() for step in range(config.max_new_tokens)]
                   for seed in seeds]  # fmt: skip
        self._numbers = torch.tensor(numbers, device=device)
        self._temperature, self._top_p, self._start = config.temperature, config.top_p, start

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (B, V) -> the same shape, 0 for the drawn token and minus infinity for all others."""
        ranked, order = (scores.float() / self._temperature).softmax(-1).sort(descending=True, stable=True)
        mass = ranked.cumsum(-1)
        nucleus = (mass - ranked < self._top_p).sum(-1, keepdim=True)
        total = mass.gather(-1, nucleus - 1)
        number = self._numbers[:, input_ids.shape[1] - self._start, None] * total
        rank = torch.searchsorted(mass, number, right=True).minimum(nucleus - 1)
        return torch.full_like(scores, -torch.inf).scatter_(-1, order.gather(-1, rank), 0.0)


def caption_seed(seed: int, number: int) -> int:
    """Seed of an image's caption `number`: 32 bits that depend on nothing else."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:4], "big")


def load_processor(config: VisionLanguageConfig) -> Any:
    """Load InternVL's processor: tokenizer, chat template, pixel statistics.

    Raises:
        OSError: Neither a folder with an InternVL nor a hub id within reach.
    """
    try:
        processor = AutoProcessor.from_pretrained(config.path, revision=config.revision or "main")
    except Exception as error:
        raise OSError(unreachable(config, error)) from error
    if not hasattr(processor, "start_image_token"):
        raise OSError(
            f"{config.path!r} holds no InternVL in transformers' format (its processor is a "
            f"{type(processor).__name__}); the hub's names of such models end in -hf"
        )
    return processor


def unreachable(config: VisionLanguageConfig, error: Exception) -> str:
    """Say that a model could not be loaded, and what to do."""
    cause = " ".join(str(error).split())
    return (
        f"no InternVL at {config.path!r}: neither a folder nor a hub model that can be fetched ({cause}). "
        "Without network, fetch it elsewhere with `hf download` and set captioner.model.path to the folder"
    )


def weights_revision(config: VisionLanguageConfig, commit: str | None) -> str:
    """The commit, or for a folder the digest of its weights."""
    folder = Path(config.path)
    if not folder.is_dir():
        return commit or config.revision or "unknown"
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return f"sha256:{digest.hexdigest()[:16]}"
