"""The vLLM backend of `reptok.captioner`: written against vLLM's sources, not run (it needs a GPU)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from reptok.captioner import (
    GeneratedCaption,
    ask,
    caption_seed,
    captioner_folder,
    load_processor,
    weights_revision,
)
from reptok.configs import VisionLanguageConfig


class VllmCaptioner:
    """The same model by vLLM, with its continuous batching; needs a GPU and the extra `vllm`.

    Its kernels add in another order than transformers', so that a caption may differ from transformers'; a
    caption's random numbers are its own here too.
    """

    def __init__(self, config: VisionLanguageConfig, dtype: torch.dtype = torch.bfloat16) -> None:
        """Start the engine on this worker's GPU.

        Raises:
            ImportError: vLLM is not installed.
            OSError: Neither a folder with an InternVL nor a hub id within reach.
        """
        try:
            import vllm
        except ImportError as error:
            raise ImportError(
                "captioner.model.backend=vllm needs the package vllm on the GPU workers: "
                "pip install 'reptok[vllm]', or set captioner.model.backend=transformers"
            ) from error
        self.config = config
        folder = captioner_folder(config)
        self.processor = load_processor(folder)
        self._asked = {prompt: ask(self.processor, prompt) for prompt in config.prompts}
        pixels = self.processor.image_processor
        self.tile_size = config.image_size or int(pixels.size["height"])
        self.revision = weights_revision(config, folder)
        tiles: dict[str, Any] = {"crop_to_patches": config.max_tiles > 1, "max_patches": config.max_tiles}
        if config.image_size:
            tiles["size"] = {"height": config.image_size, "width": config.image_size}
        self._engine = vllm.LLM(
            model=str(folder),
            dtype=str(dtype).removeprefix("torch."),
            limit_mm_per_prompt={"image": 1},
            mm_processor_kwargs=tiles,
            trust_remote_code=False,
            generation_config="vllm",
        )
        self._sampling: Any = vllm.SamplingParams

    def __call__(self, images: Sequence[np.ndarray], seeds: Sequence[int]) -> list[list[GeneratedCaption]]:
        """Caption images as :class:`InternVLCaptioner` does, all captions in one call of the engine."""
        config = self.config
        requests, parameters, wanted = [], [], []
        for image, seed in zip(images, seeds, strict=True):
            for number in range(config.captions_per_image):
                prompt = config.prompts[number % len(config.prompts)]
                own = caption_seed(seed, number)
                picture = {"image": Image.fromarray(image)}
                requests.append({"prompt": self._asked[prompt], "multi_modal_data": picture})
                parameters.append(
                    self._sampling(
                        temperature=config.temperature,
                        top_p=config.top_p,
                        max_tokens=config.max_new_tokens,
                        seed=own,
                    )
                )
                wanted.append((prompt, own))
        answers = self._engine.generate(requests, parameters, use_tqdm=False)
        captions = [
            GeneratedCaption(answer.outputs[0].text.strip(), prompt, seed)
            for answer, (prompt, seed) in zip(answers, wanted, strict=True)
        ]
        each = config.captions_per_image
        return [captions[start : start + each] for start in range(0, len(captions), each)]
