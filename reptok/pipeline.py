"""The whole model: prompts or labels to images, in one call."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor, nn

from reptok.data.transforms import to_uint8
from reptok.flow.noise import expand_seed
from reptok.flow.solver import Solver
from reptok.generator.conditioner import Conditioner
from reptok.generator.conditioning import Condition
from reptok.generator.generator import TokenGenerator
from reptok.image_tokenizer import ImageTokenizer
from reptok.text_encoder import TextEncoder

Wanted = str | int | Sequence[str] | Sequence[int] | Sequence[str | int] | None
"""One prompt or several; or one class, by number or name, or several."""


def to_pictures(images: Tensor) -> list[Image.Image]:
    """Images (B, 3, H, W), clamped to [-1, 1], as 8-bit RGB pictures."""
    return [Image.fromarray(pixels) for pixels in to_uint8(images)]


class RepTokPipeline(nn.Module):
    """Tokenizer, and where the model has them a generator, a text encoder and names for the classes."""

    def __init__(
        self,
        tokenizer: ImageTokenizer,
        generator: TokenGenerator | None = None,
        text_encoder: TextEncoder | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        """Put the parts together.

        Raises:
            ValueError: Generator and tokenizer, or generator and text encoder, disagree on a width or number.
        """
        super().__init__()
        if generator is not None:
            ours = (tokenizer.num_tokens, tokenizer.token_dim)
            theirs = (generator.config.num_tokens, generator.config.token_dim)
            if ours != theirs:
                raise ValueError(f"the generator makes tokens of {theirs}, the tokenizer decodes {ours}")
            if text_encoder is not None and generator.config.text_dim not in (0, text_encoder.dim):
                raise ValueError(
                    f"the generator reads text of width {generator.config.text_dim}, "
                    f"the text encoder gives {text_encoder.dim}"
                )
        self.tokenizer = tokenizer
        self.generator = generator
        self.text_encoder = text_encoder
        self.class_names = None if class_names is None else list(class_names)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.tokenizer.device

    @property
    def conditioner(self) -> Conditioner:
        """What makes conditions of prompts, labels and samples, as the generator reads them."""
        generator = self._need_generator()
        return generator.reads(generator.config, self.text_encoder, self.class_names)

    def condition(self, prompt: Wanted = None, labels: Wanted = None) -> Condition:
        """The generator's condition for prompts or for labels (numbers or class names).

        Raises:
            ValueError: Both or the wrong kind were given, or a class name is unknown.
        """
        if prompt is not None and labels is not None:
            raise ValueError("give either a prompt or labels, not both")
        conditioner = self.conditioner
        if labels is not None and conditioner.reads_text:
            raise ValueError("this model is conditioned on text: give a prompt, and no labels")
        wanted = labels if prompt is None else prompt
        chosen = [wanted] if isinstance(wanted, (int, str)) else list(wanted or ())
        return conditioner.asked(chosen).to(self.device)

    @torch.no_grad()
    def __call__(
        self,
        prompt: Wanted = None,
        *,
        labels: Wanted = None,
        num_images: int = 1,
        cfg_scale: float = 1.5,
        guidance_interval: tuple[float, float] | None = (0.3, 0.9),
        num_steps: int | Sequence[float] = 50,
        decoder_steps: int | Sequence[float] = 50,
        solver: str | Solver = "euler",
        seed: int | Sequence[int] = 0,
        batch_size: int = 32,
    ) -> list[Image.Image]:
        """Generate pictures.

        Args:
            prompt: Text or texts; class numbers or names for a class-conditional model.
            labels: Class numbers or names, in the place of a prompt.
            num_images: Pictures per prompt or label, in a row.
            cfg_scale: Guidance of the token generator; 1 is off.
            guidance_interval: Times at which it acts.
            num_steps: Steps of the generator, or its times.
            decoder_steps: Steps of the decoder, or its times.
            solver: Of both; a name of ``reptok.flow.solver.SOLVERS`` ("euler", "sde", ...), or a solver.
            seed: Picture i uses seed + i (or the i-th of a sequence), whatever the batch it is made in.
            batch_size: Pictures made at a time.
        """
        generator = self._need_generator()
        condition = self.condition(prompt, labels)
        total = num_images * len(condition) if generator.is_conditional else num_images
        condition = condition.repeat(num_images)
        seeds = expand_seed(seed, total)
        pictures: list[Image.Image] = []
        for start in range(0, total, batch_size):
            rows = slice(start, start + batch_size)
            images = self.sample(
                condition.index(rows), seeds[rows], cfg_scale=cfg_scale, guidance_interval=guidance_interval,
                num_steps=num_steps, decoder_steps=decoder_steps, solver=solver,
            )  # fmt: skip
            pictures += to_pictures(images)
        return pictures

    @torch.no_grad()
    def sample(
        self,
        condition: Condition,
        seeds: Sequence[int],
        *,
        cfg_scale: float = 1.5,
        guidance_interval: tuple[float, float] | None = (0.3, 0.9),
        num_steps: int | Sequence[float] = 50,
        decoder_steps: int | Sequence[float] = 50,
        solver: str | Solver = "euler",
    ) -> Tensor:
        """One batch of images (B, 3, H, W), clamped to [-1, 1], on the model's device.

        Whatever makes samples comes through here: what is published is what is shown and scored.

        Args:
            condition: One per image, of :meth:`condition`; the empty one for an unconditional model.
            seeds: One per image; the noise of its token and of its latent depends on nothing else.
            cfg_scale: As in :meth:`__call__`, like the rest.
            guidance_interval: As above.
            num_steps: As above.
            decoder_steps: As above.
            solver: As above.
        """
        tokens = self._need_generator().sample(
            condition, seeds=seeds, num_samples=len(seeds), num_steps=num_steps, cfg_scale=cfg_scale,
            guidance_interval=guidance_interval, solver=solver,
        )  # fmt: skip
        images = self.tokenizer.detokenize(tokens, num_steps=decoder_steps, solver=solver, seed=seeds)
        return images.clamp(-1, 1)

    def _need_generator(self) -> TokenGenerator:
        if self.generator is None:
            raise ValueError(
                "this model has a tokenizer but no generator: it reconstructs and does not generate"
            )
        return self.generator
