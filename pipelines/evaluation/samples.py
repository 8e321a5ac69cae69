"""Ask the generator for what validation images show, with and without guidance, and look at what comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipelines.evaluation.dataset_view import DatasetView, Example
from pipelines.evaluation.loss_by_time import loss_by_time
from reptok.data.transforms import to_uint8
from reptok.flow.noise import noise_from_seeds
from reptok.generator.conditioning import Condition
from reptok.generator.generator import TOKEN_NOISE_STREAM, TokenGenerator
from reptok.metrics.features import FeatureExtractor
from reptok.pipeline import RepTokPipeline
from reptok.training.objectives import SEGMENTS


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """A model and how it is asked: conditions of examples in, images out.

    Attributes:
        pipe: the model, with everything that is published of it.
        generator_steps: solver steps of the generator.
        decoder_steps: solver steps of the decoder.
        guidance_interval: flow times between which guidance acts.
        solver: of both; a name of `reptok.flow.solver.SOLVERS`.
    """

    pipe: RepTokPipeline
    generator_steps: int
    decoder_steps: int
    guidance_interval: tuple[float, float]
    solver: str

    @property
    def generator(self) -> TokenGenerator:
        """The part that makes tokens."""
        if self.pipe.generator is None:
            raise ValueError("this model has no generator: there is nothing to sample")
        return self.pipe.generator

    def condition(self, examples: Sequence[Example]) -> Condition:
        """What the generator is told about some samples: their captions, their labels or nothing.

        Raises:
            ValueError: if a class-conditional generator meets a sample without a label.
        """
        labels = [-1 if example.label is None else example.label for example in examples]
        conditioner = self.pipe.conditioner
        found = conditioner.of([example.caption for example in examples], torch.tensor(labels))
        return found.to(self.pipe.device)

    def __call__(self, examples: Sequence[Example], seeds: Sequence[int], guidance: float) -> Tensor:
        """One image (B, 3, H, W) per example, clamped to [-1, 1], on the CPU; its seed decides its noise."""
        return self.pipe.sample(
            self.condition(examples),
            seeds,
            cfg_scale=guidance,
            guidance_interval=self.guidance_interval,
            num_steps=self.generator_steps,
            decoder_steps=self.decoder_steps,
            solver=self.solver,
        ).cpu()


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What came of it.

    Attributes:
        images: per guidance, one sample (N, 3, H, W) for every example of the view, uint8.
        features: per guidance and extractor name, their features (N, D).
        originals: features of the view's own images by extractor name.
        losses: (8,) velocity loss on the view's tokens at the midpoints of eight segments of time.
    """

    images: dict[float, Tensor]
    features: dict[float, dict[str, Tensor]]
    originals: dict[str, Tensor]
    losses: Tensor


@torch.no_grad()
def run_samples(
    sampler: Sampler,
    view: DatasetView,
    extractors: Sequence[FeatureExtractor],
    *,
    guidance: Sequence[float],
    batch_size: int,
    progress: Callable[[int, int], None],
) -> Samples:
    """Sample once per example and guidance, and measure the generator's loss on the examples themselves."""
    device = sampler.pipe.device
    images: dict[float, list[Tensor]] = {scale: [] for scale in guidance}
    features: dict[float, dict[str, list[Tensor]]] = {
        scale: {extractor.name: [] for extractor in extractors} for scale in guidance
    }
    originals: dict[str, list[Tensor]] = {extractor.name: [] for extractor in extractors}
    losses = torch.zeros(SEGMENTS, dtype=torch.float64)
    for positions, real in view.batches(batch_size):
        examples = [view.examples[position] for position in positions]
        seeds = [example.seed for example in examples]
        for extractor in extractors:
            originals[extractor.name].append(extractor(real.to(device)).cpu())
        losses += _losses(sampler, sampler.pipe.tokenizer.tokenize(real.to(device)), examples, seeds)
        for scale in guidance:
            made = sampler(examples, seeds, scale)
            images[scale].append(torch.from_numpy(to_uint8(made)).movedim(-1, -3))
            for extractor in extractors:
                features[scale][extractor.name].append(extractor(made.to(device)).cpu())
        progress(positions[-1] + 1, len(view))
    return Samples(
        images={scale: torch.cat(parts) for scale, parts in images.items()},
        features={
            scale: {name: torch.cat(parts) for name, parts in named.items()}
            for scale, named in features.items()
        },
        originals={name: torch.cat(parts) for name, parts in originals.items()},
        losses=losses / len(view),
    )


def _losses(sampler: Sampler, tokens: Tensor, examples: Sequence[Example], seeds: Sequence[int]) -> Tensor:
    """Sums over a batch of the loss at each segment's midpoint."""
    generator = sampler.generator
    condition = sampler.condition(examples)
    shape = (generator.config.num_tokens, generator.config.token_dim)
    noise = noise_from_seeds(seeds, shape, stream=TOKEN_NOISE_STREAM).to(tokens)
    return loss_by_time(lambda t: generator.losses(tokens, condition, noise=noise, t=t), tokens)
