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
from transformers import AutoProcessor, GenerationConfig, InternVLForConditionalGeneration, LogitsProcessor

from reptok.chat_template import render
from reptok.configs import VisionLanguageConfig
from reptok.data.tiles import resize_tile, stack_tiles
from reptok.folder import check_folder, commit_of, loading, local_folder
from reptok.transformers_folder import LOCAL, check_vocabulary, load_network, quiet

ARCHITECTURE = "InternVLForConditionalGeneration"
MAX_TILE = 4096


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
        ValueError: By vLLM, captions are written in bulk: the pipeline's stage has its engines.
    """
    if config.backend != "transformers":
        raise ValueError(
            f"captioner.model.backend={config.backend} writes captions in the pipeline alone, in bulk; set "
            "captioner.model.backend=transformers"
        )
    return InternVLCaptioner(config, device, dtype)


class InternVLCaptioner:
    """An InternVL by transformers, such as `OpenGVLab/InternVL3-1B-hf`."""

    def __init__(
        self, config: VisionLanguageConfig, device: str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        """Load processor and weights, frozen.

        Raises:
            OSError: Neither a folder nor a hub id within reach.
            ValueError: The folder holds no InternVL, or one that does not fit together.
        """
        self.config = config
        folder = captioner_folder(config)
        self.processor = load_processor(folder)
        model: Any = load_network(
            InternVLForConditionalGeneration, folder, dtype, architectures=(ARCHITECTURE,)
        )
        check_vocabulary(self.processor.tokenizer, model, folder)
        with loading(folder):
            self.tile_size = config.image_size or int(model.config.vision_config.image_size[0])
            normal = self.processor.image_processor
            self._mean = torch.tensor(normal.image_mean, device=device).view(3, 1, 1)
            self._std = torch.tensor(normal.image_std, device=device).view(3, 1, 1)
            self._tokens_per_tile = _tokens_per_tile(model.config, self.tile_size)
            model.generation_config = _plain_generation(model, self.processor.tokenizer)
        self.model = model.to(device)
        self.revision = weights_revision(config, folder)
        self._asked = {prompt: ask(self.processor, prompt) for prompt in config.prompts}
        with loading(folder), torch.no_grad():  # what does not fit together shows now, not at the first image
            pixels, tiles = self.pixels([np.zeros((self.tile_size, self.tile_size, 3), np.uint8)])
            self.model(**self.questions(config.prompts[:1], tiles), pixel_values=pixels)

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
        texts = []
        for prompt, count in zip(prompts, tiles, strict=True):
            asked = self._asked.get(prompt) or ask(processor, prompt)
            image = processor.start_image_token + processor.image_token * self._tokens_per_tile * count
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


def captioner_folder(config: VisionLanguageConfig) -> Path:
    """The captioner's folder, fetched from the hub where a hub id is named.

    Raises:
        OSError: Neither a folder nor a hub id within reach.
    """
    try:
        return local_folder(config.path, config.revision)
    except OSError as error:
        cause = " ".join(str(error).split())
        raise OSError(
            f"no InternVL at {config.path!r}: neither a folder nor a model to fetch ({cause}); "
            "or set captioner.model.path to such a folder"
        ) from error


def load_processor(folder: Path) -> Any:
    """Load InternVL's processor: tokenizer, chat template, pixel statistics.

    Raises:
        ValueError: The folder holds another processor, or could lead out of itself.
    """
    check_folder(folder)
    with loading(folder), quiet():
        processor = AutoProcessor.from_pretrained(folder, **LOCAL)
    if type(processor).__name__ != "InternVLProcessor":
        raise ValueError(
            f"{folder} holds no InternVL in transformers' format (its processor is a "
            f"{type(processor).__name__}); the hub's names of such models end in -hf"
        )
    return processor


def tile_of(config: VisionLanguageConfig, processor: Any) -> int:
    """Side of a tile in pixels."""
    return config.image_size or int(processor.image_processor.size["height"])


def ask(processor: Any, prompt: str) -> str:
    """A prompt about one image as the model's chat template words it, with one token for the image.

    Raises:
        ValueError: There is no such template, it fails or does not end, or it leaves the image out.
    """
    tokenizer = processor.tokenizer
    template = processor.chat_template or tokenizer.chat_template
    if not isinstance(template, str):
        raise ValueError("the captioner has no chat template (chat_template.jinja)")
    content = [{"type": "image"}, {"type": "text", "text": prompt}]
    tokens = {
        name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)
    }
    asked = render(template, [{"role": "user", "content": content}], **tokens)
    if asked.count(processor.image_token) != 1:
        raise ValueError(
            f"the captioner's chat template has {asked.count(processor.image_token)} places for the image "
            f"({processor.image_token}), not one"
        )
    return asked


def _tokens_per_tile(config: Any, tile: int) -> int:
    """Tokens that the network makes of a tile."""
    patch, ratio = int(config.vision_config.patch_size[0]), float(config.downsample_ratio)
    if not (1 <= patch <= tile <= MAX_TILE and 0 < ratio <= 1):
        raise ValueError(f"tiles of {tile} px in patches of {patch}, scaled by {ratio}, cannot be read")
    return int((tile // patch * ratio) ** 2)


def _plain_generation(model: Any, tokenizer: Any) -> GenerationConfig:
    """How a caption ends; everything else that a folder may say of decoding is ours to say."""
    ends = model.generation_config.eos_token_id if model.generation_config else None
    ends = ends if isinstance(ends, list) else [ends]
    ends = [end for end in ends if type(end) is int] or [tokenizer.eos_token_id]
    return GenerationConfig(eos_token_id=ends, pad_token_id=tokenizer.pad_token_id)


def weights_revision(config: VisionLanguageConfig, folder: Path) -> str:
    """The commit, or for a folder the digest of its weights."""
    if not Path(config.path).is_dir():
        return commit_of(folder) or config.revision or "unknown"
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return f"sha256:{digest.hexdigest()[:16]}"
