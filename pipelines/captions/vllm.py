"""Captions by vLLM through ray.data.llm: CPU workers prepare pictures, engines answer in continuous batches.

Written against the sources of Ray 2.60 and vLLM. Ray's own classes take the configuration and the rows; vLLM
itself needs a GPU, and has not been run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from pipelines.captions.caption import CaptionerConfig, row_seed
from pipelines.captions.images import UNREADABLE, decoded, judged
from pipelines.dag.asking import ADDRESS, UNASKED, Asking, Row
from pipelines.dag.op import Batch
from pipelines.dag.shards import Shard

if TYPE_CHECKING:
    from ray.data import Dataset
    from ray.data.llm import vLLMEngineProcessorConfig

CONCURRENT_BATCHES = 16
"""Of 64 requests: as many as an engine on an H100 works on at the same time."""


@dataclass(frozen=True)
class VllmCaptions(Asking):
    """Asks for `captions_per_image` captions of each picture.

    Attributes:
        config: The captioner, its model's path resolved and its revision a commit.
        pictures: Keys and files of a shard's pictures at which the model is to look.
    """

    config: CaptionerConfig
    pictures: Callable[[Shard], Iterable[tuple[str, bytes | None]]]

    def setup(self) -> None:
        """Load the model's processor; it words the prompts."""
        from reptok.captioner import ask, captioner_folder, load_processor, tile_of

        assert self.config.model is not None
        processor = load_processor(captioner_folder(self.config.model))
        prompts = {prompt: ask(processor, prompt) for prompt in self.config.model.prompts}
        object.__setattr__(self, "_prompts", prompts)
        object.__setattr__(self, "_tile", tile_of(self.config.model, processor))

    def seen(self) -> tuple[int, str]:
        """Side of a tile in pixels, and the weights' revision."""
        from reptok.captioner import captioner_folder, load_processor, tile_of, weights_revision

        assert self.config.model is not None
        folder = captioner_folder(self.config.model)
        return tile_of(self.config.model, load_processor(folder)), weights_revision(self.config.model, folder)

    def questions(self, shard: Shard) -> Iterator[Row]:
        """A row for each caption: `key`, `asked` and its wording `prompt`, `seed`, `image` (PIL)."""
        from PIL import Image

        from reptok.captioner import caption_seed

        model, prompts = self.config.model, self._prompts  # type: ignore[attr-defined]
        assert model is not None
        for key, file in self.pictures(shard):
            pixels, reason = decoded(file, model, self._tile)  # type: ignore[attr-defined]
            image = None if pixels is None else Image.fromarray(pixels)
            for number in range(model.captions_per_image):
                asked = model.prompts[number % len(model.prompts)]
                seed = caption_seed(row_seed(self.config.seed, key), number)
                yield {"key": key, "asked": asked, "prompt": prompts[asked], "seed": seed, "image": image,
                       UNASKED: reason or ""}  # fmt: skip

    def processor(self, workers: int) -> Callable[[Dataset], Dataset]:
        """Engines of vLLM, one on each GPU.

        Raises:
            ImportError: vLLM is not installed.
        """
        if find_spec("vllm") is None:
            raise ImportError(
                "captioner.model.backend=vllm needs the package vllm, here and on the machines with GPUs: "
                "pip install 'reptok[vllm]', or set captioner.model.backend=transformers"
            )
        from ray.data.llm import build_processor

        processor: Callable[[Dataset], Dataset] = build_processor(
            engine_config(self.config, workers),
            preprocess=partial(request, self.config),
            postprocess=answered,
        )
        return processor

    def heals(self, row: Row) -> bool:
        """Whether an engine failed: a picture that cannot be read stays what it is."""
        return row[UNASKED] not in ("", *UNREADABLE)

    def answer(self, row: Row) -> Mapping[str, Any]:
        """`key`, `prompt`, `seed`, and `text` or `failure`."""
        failure = row[UNASKED]
        if failure and failure not in UNREADABLE:
            failure = "captioner_failed"
        kept = {"key": row["key"], "prompt": row["asked"], "seed": int(row["seed"]), "failure": failure}
        return {**kept, "text": "" if failure else row["text"]}


def engine_config(config: CaptionerConfig, workers: int) -> vLLMEngineProcessorConfig:
    """What ray.data.llm is told of the engines; pictures and prompts come prepared."""
    from ray.data.llm import vLLMEngineProcessorConfig

    model = config.model
    assert model is not None
    tiles: dict[str, Any] = {"crop_to_patches": model.max_tiles > 1, "max_patches": model.max_tiles}
    if model.image_size:
        tiles["size"] = {"height": model.image_size, "width": model.image_size}
    return vLLMEngineProcessorConfig(
        model_source=model.path,
        engine_kwargs={
            "dtype": config.compute.precision,
            "revision": model.revision,
            "limit_mm_per_prompt": {"image": 1},
            "mm_processor_kwargs": tiles,
            "trust_remote_code": False,
            "generation_config": "vllm",  # what a folder says of decoding is ours to say
        },
        batch_size=config.compute.batch_size,
        max_concurrent_batches=CONCURRENT_BATCHES,
        concurrency=workers,
        should_continue_on_error=True,
        log_engine_metrics=False,
        chat_template_stage=False,
        tokenize_stage=False,
        detokenize_stage=False,
        prepare_multimodal_stage=False,
    )


def request(config: CaptionerConfig, row: Row) -> Row:
    """What a row of `questions` needs beside its prompt: the picture, and how to decode."""
    model = config.model
    assert model is not None
    sampling = {
        "temperature": float(model.temperature),
        "top_p": float(model.top_p),
        "max_tokens": model.max_new_tokens,
        "seed": row.get("seed"),
    }
    picture = row.get("image")  # what is not asked, such as the end of a lane, has none
    return {"multimodal_data": {"image": picture}, "image": None, "sampling_params": sampling}


def answered(row: Row) -> Row:
    """What goes on of a row with an answer; the picture does not."""
    kept = {name: row[name] for name in (*ADDRESS, "key", "asked", "seed")}
    return {**kept, "text": row["generated_text"].strip()}


class Answered:
    """Takes the place of `CaptionImages` where the answers are there already.

    Args:
        config: The captioner.
        answers: Those about the pictures of a shard.
    """

    def __init__(self, config: CaptionerConfig, answers: Iterable[Mapping[str, Any]]) -> None:
        self._config = config
        self._captions: dict[str, list[Mapping[str, Any]]] = {}
        for answer in answers:
            self._captions.setdefault(answer["key"], []).append(answer)

    def __call__(self, batch: Batch) -> Batch:
        """Add what `CaptionImages` adds, for the keys of a batch."""
        found = [self._captions[key] for key in batch["key"]]
        failures = [next((one["failure"] for one in own if one["failure"]), None) for own in found]
        generated = [
            [] if failure else [judged(one["text"], one["prompt"], one["seed"], self._config) for one in own]
            for own, failure in zip(found, failures, strict=True)
        ]
        return {**batch, "generated": generated, "failure": failures}
