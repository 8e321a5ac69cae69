"""Ask the generator for what validation images show, with and without guidance, and look at what comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipelines.evaluation.dataset_view import DatasetView, Example
from reptok.flow.noise import noise_from_seeds
from reptok.generator.conditioning import Condition
from reptok.generator.generator import TOKEN_NOISE_STREAM, TokenGenerator
from reptok.latent_tokenizer import LatentTokenizer
from reptok.metrics.features import FeatureExtractor
from reptok.text_encoder import TextEncoder
from reptok.tokenizer import RepTok

TIME_BINS = 8


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Conditions in, images out; a sample's noise follows from its seed alone.

    Attributes:
        tokenizer: makes images of tokens.
        generator: makes tokens.
        text_encoder: reads prompts; None for a generator without text.
        generator_steps: Euler steps of the generator.
        decoder_steps: Euler steps of the decoder.
        guidance_interval: flow times between which guidance acts.
    """

    tokenizer: RepTok | LatentTokenizer
    generator: TokenGenerator
    text_encoder: TextEncoder | None
    generator_steps: int
    decoder_steps: int
    guidance_interval: tuple[float, float]

    def condition(self, examples: Sequence[Example]) -> Condition:
        """What the generator is told about some samples: their captions, their labels or nothing.

        Raises:
            ValueError: if a class-conditional generator meets a sample without a label.
        """
        kind = self.generator.config.condition
        if kind == "text" and self.text_encoder is not None:
            states, mask = self.text_encoder([example.caption for example in examples])
            return Condition(text=states, mask=mask).to(self.tokenizer.device)
        if kind == "class":
            labels = [example.label for example in examples]
            if None in labels:
                raise ValueError("the generator wants labels, but the dataset has samples without one")
            return Condition(labels=torch.tensor(labels)).to(self.tokenizer.device)
        return Condition()

    @torch.no_grad()
    def __call__(self, examples: Sequence[Example], seeds: Sequence[int], guidance: float) -> Tensor:
        """One image (B, 3, H, W) per example, clamped to [-1, 1], on the CPU."""
        tokens = self.generator.sample(
            self.condition(examples),
            seeds=seeds,
            num_samples=len(seeds),
            num_steps=self.generator_steps,
            cfg_scale=guidance,
            guidance_interval=self.guidance_interval,
        )
        images = self.tokenizer.detokenize(tokens, num_steps=self.decoder_steps, seed=seeds)
        return images.clamp(-1, 1).cpu()


@dataclass(frozen=True, kw_only=True)
class SamplingTrial:
    """What came of it.

    Attributes:
        images: per guidance, one sample (N, 3, H, W) for every example of the view, uint8.
        features: per guidance and extractor name, their features (N, D).
        originals: features of the view's own images by extractor name.
        bin_losses: (8,) velocity loss on the view's tokens at the midpoints of eight bins of time.
    """

    images: dict[float, Tensor]
    features: dict[float, dict[str, Tensor]]
    originals: dict[str, Tensor]
    bin_losses: Tensor


@torch.no_grad()
def run_samples(
    sampler: Sampler,
    view: DatasetView,
    extractors: Sequence[FeatureExtractor],
    *,
    guidance: Sequence[float],
    batch_size: int,
    progress: Callable[[int, int], None],
) -> SamplingTrial:
    """Sample once per example and guidance, and measure the generator's loss on the examples themselves."""
    device = sampler.tokenizer.device
    images: dict[float, list[Tensor]] = {scale: [] for scale in guidance}
    features: dict[float, dict[str, list[Tensor]]] = {
        scale: {extractor.name: [] for extractor in extractors} for scale in guidance
    }
    originals: dict[str, list[Tensor]] = {extractor.name: [] for extractor in extractors}
    losses = torch.zeros(TIME_BINS, dtype=torch.float64)
    for positions, real in view.batches(batch_size):
        examples = [view.examples[position] for position in positions]
        seeds = [example.seed for example in examples]
        for extractor in extractors:
            originals[extractor.name].append(extractor(real.to(device)).cpu())
        losses += _bin_losses(sampler, sampler.tokenizer.tokenize(real.to(device)), examples, seeds)
        for scale in guidance:
            made = sampler(examples, seeds, scale)
            images[scale].append(((made + 1) * 127.5).round().byte())
            for extractor in extractors:
                features[scale][extractor.name].append(extractor(made.to(device)).cpu())
        progress(positions[-1] + 1, len(view))
    return SamplingTrial(
        images={scale: torch.cat(parts) for scale, parts in images.items()},
        features={
            scale: {name: torch.cat(parts) for name, parts in named.items()}
            for scale, named in features.items()
        },
        originals={name: torch.cat(parts) for name, parts in originals.items()},
        bin_losses=losses / len(view),
    )


def _bin_losses(
    sampler: Sampler, tokens: Tensor, examples: Sequence[Example], seeds: Sequence[int]
) -> Tensor:
    """Sum over a batch of the loss at each bin's midpoint, with the same noise for all bins."""
    generator = sampler.generator
    condition = sampler.condition(examples)
    shape = (generator.config.num_tokens, generator.config.token_dim)
    noise = noise_from_seeds(seeds, shape, stream=TOKEN_NOISE_STREAM).to(tokens)
    sums = []
    for number in range(TIME_BINS):
        t = tokens.new_full((len(tokens),), (number + 0.5) / TIME_BINS)
        sums.append(generator.losses(tokens, condition, noise=noise, t=t).double().sum().cpu())
    return torch.stack(sums)
