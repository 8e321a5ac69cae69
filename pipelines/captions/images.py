"""The op that looks: JPEG files to a model's captions, each judged by the gates, each image on its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pipelines.captions.caption import CaptionerConfig, row_seed
from pipelines.captions.gates import refusal_reason
from pipelines.dag.op import Batch, Op
from reptok.configs import VisionLanguageConfig

if TYPE_CHECKING:
    from reptok.captioner import Captioner

UNREADABLE = NO_IMAGE, UNDECODABLE = "no_image", "undecodable"
Decoded = tuple[Any, str | None]
"""Pixels uint8 (H, W, 3) and None, or None and the reason."""


@dataclass(frozen=True)
class CaptionImages(Op):
    """Caption images; one on which the model fails is tried again alone, and keeps a reason.

    `generated` holds, per image, dictionaries of text, prompt, seed and reason (None where the caption passed
    the gates); `failure` says why there are none: "no_image", "undecodable" or "captioner_failed".
    """

    config: CaptionerConfig

    reads: ClassVar[tuple[str, ...]] = ("key", "jpg")
    writes: ClassVar[tuple[str, ...]] = ("generated", "failure")

    def setup(self) -> None:
        """Load the model on this worker's device."""
        import torch

        from reptok.captioner import load_captioner

        assert self.config.model is not None
        self.config.compute.prepare()
        compute = self.config.compute
        captioner = load_captioner(self.config.model, compute.device, getattr(torch, compute.precision))
        object.__setattr__(self, "_captioner", captioner)

    @property
    def captioner(self) -> Captioner:
        """The loaded model."""
        captioner: Captioner = self._captioner  # type: ignore[attr-defined]
        return captioner

    def __call__(self, batch: Batch) -> Batch:
        """Add the model's captions of a batch of any size; the model sees `compute.batch_size` at a time."""
        generated: list[list[dict[str, Any]]] = []
        failures: list[str | None] = []
        start = 0
        for images in self._decoded(batch["jpg"]):
            seeds = [row_seed(self.config.seed, key) for key in batch["key"][start : start + len(images)]]
            start += len(images)
            for captions, failure in self._caption(images, seeds):
                generated.append(captions)
                failures.append(failure)
        return {**batch, "generated": generated, "failure": failures}

    def _decoded(self, files: Sequence[bytes | None]) -> Iterator[list[Decoded]]:
        """Decode by the worker's CPUs, one batch ahead of the model."""
        size = self.config.compute.batch_size
        parts = [files[start : start + size] for start in range(0, len(files), size)]
        with ThreadPoolExecutor(max(1, int(self.config.workers.cpus)), "decode") as pool:

            def submit(part: Sequence[bytes | None]) -> list[Future[Decoded]]:
                return [pool.submit(self._decode, file) for file in part]

            ahead = [submit(part) for part in parts[:1]]
            for number in range(len(parts)):
                ahead += [submit(part) for part in parts[number + 1 : number + 2]]
                yield [future.result() for future in ahead.pop(0)]

    def _decode(self, file: bytes | None) -> Decoded:
        assert self.config.model is not None
        return decoded(file, self.config.model, self.captioner.tile_size)

    def _caption(
        self, images: Sequence[Decoded], seeds: Sequence[int]
    ) -> list[tuple[list[dict[str, Any]], str | None]]:
        """Caption what is decoded at once; where that fails, one by one."""
        rows: list[tuple[list[dict[str, Any]], str | None]] = [([], reason) for _, reason in images]
        good = [number for number, (pixels, _) in enumerate(images) if pixels is not None]
        try:
            found = self._ask([images[number][0] for number in good], [seeds[number] for number in good])
            for number, captions in zip(good, found, strict=True):
                rows[number] = captions, None
        except Exception as error:
            print(f"  {len(good)} images one by one: {type(error).__name__}: {error}", flush=True)
            for number in good:
                rows[number] = self._alone(images[number][0], seeds[number])
        return rows

    def _alone(self, image: Any, seed: int) -> tuple[list[dict[str, Any]], str | None]:
        for _ in range(self.config.attempts):
            try:
                return self._ask([image], [seed])[0], None
            except Exception as error:
                last = error
        print(f"  an image without a caption: {type(last).__name__}: {last}", flush=True)
        return [], "captioner_failed"

    def _ask(self, images: Sequence[Any], seeds: Sequence[int]) -> list[list[dict[str, Any]]]:
        from reptok.attention import preferred

        with preferred(self.config.compute.device):
            found = self.captioner(images, seeds)
        return [
            [judged(caption.text, caption.prompt, caption.seed, self.config) for caption in captions]
            for captions in found
        ]


def decoded(file: bytes | None, model: VisionLanguageConfig, tile: int) -> Decoded:
    """A picture as the model takes it: squeezed into a tile of so many pixels where it sees but one."""
    from reptok.data.images import decode_image
    from reptok.data.tiles import decode_tile

    if not file:
        return None, NO_IMAGE
    try:
        return decode_tile(file, tile) if model.max_tiles == 1 else decode_image(file), None
    except Exception:  # decoders raise anything for damaged files
        return None, UNDECODABLE


def judged(text: str, prompt: str, seed: int, config: CaptionerConfig) -> dict[str, Any]:
    """A caption as it is kept, with the gate that refuses it, if one does."""
    return {"text": text, "prompt": prompt, "seed": seed, "reason": refusal_reason(text, config.gates)}
