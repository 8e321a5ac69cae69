"""The ways to tell a generator what to make: nothing, a class or a text; one class for each.

B batch, L text tokens, C text width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from reptok.configs import GeneratorConfig
from reptok.generator.conditioning import Condition

ReadsText = Callable[[Sequence[str]], tuple[Tensor, Tensor]]
"""Texts to states (B, L, C) and their mask (B, L), as a `TextEncoder` does."""


class Conditioner(ABC):
    """Makes conditions of what a user asks for, and of what a data set says of its samples.

    Attributes:
        reads_classes: Whether the generator embeds a class.
        reads_text: Whether it attends to a text.
        told: What samples tell it, in a sentence ("the captions"); "" for nothing.
    """

    reads_classes: ClassVar[bool] = False
    reads_text: ClassVar[bool] = False
    told: ClassVar[str] = ""

    def __init__(
        self,
        config: GeneratorConfig,
        text_encoder: ReadsText | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        self.config, self.text_encoder = config, text_encoder
        self.class_names = None if class_names is None else list(class_names)

    @abstractmethod
    def asked(self, wanted: Sequence[str | int]) -> Condition:
        """Return the condition for prompts, or for classes by number or name.

        Raises:
            ValueError: They are not what this generator can be told.
        """

    @abstractmethod
    def of(self, captions: Sequence[str], labels: Tensor) -> Condition:
        """Return what samples say: their captions, or their labels (B,), -1 where a sample has none.

        Raises:
            ValueError: A sample does not say what is needed.
        """

    @abstractmethod
    def example(self, batch: int, text_length: int) -> Condition:
        """Return some condition of the right shapes, to count or to time with."""

    def title(self, caption: str, class_name: str) -> str:
        """Return what a sample told, for people."""
        return ""


class NoCondition(Conditioner):
    """Nothing; or extra tokens, which a caller brings himself."""

    def asked(self, wanted: Sequence[str | int]) -> Condition:
        """Return the empty condition."""
        if wanted:
            raise ValueError("this model is unconditional: it takes neither prompt nor labels")
        return Condition()

    def of(self, captions: Sequence[str], labels: Tensor) -> Condition:
        """Return the empty condition."""
        return Condition()

    def example(self, batch: int, text_length: int) -> Condition:
        """Return extra tokens (B, E, D), if it takes any."""
        return Condition(extra=torch.zeros(batch, self.config.num_extra_tokens, self.config.token_dim))


class ClassCondition(Conditioner):
    """One of `num_classes` classes."""

    reads_classes, told = True, "the labels"

    def asked(self, wanted: Sequence[str | int]) -> Condition:
        """Return labels (B,)."""
        if not wanted:
            raise ValueError("this model is conditioned on classes: give labels")
        return Condition(labels=torch.tensor([self._number(label) for label in wanted]))

    def of(self, captions: Sequence[str], labels: Tensor) -> Condition:
        """Return the samples' labels (B,)."""
        if bool((labels < 0).any()):
            raise ValueError(
                "the dataset has samples without a label, which generator.condition=class needs; "
                "import_images labels them by their folders"
            )
        return Condition(labels=labels)

    def example(self, batch: int, text_length: int) -> Condition:
        """Return the first class for all."""
        return Condition(labels=torch.zeros(batch, dtype=torch.long))

    def title(self, caption: str, class_name: str) -> str:
        """Return the class's name."""
        return class_name

    def _number(self, label: int | str) -> int:
        if isinstance(label, str) and label.isdigit():
            label = int(label)
        if isinstance(label, str):
            if self.class_names is None or label not in self.class_names:
                known = ", ".join(self.class_names or []) or "none; give numbers"
                raise ValueError(f"unknown class {label!r}; known classes: {known}")
            return self.class_names.index(label)
        if not 0 <= label < self.config.num_classes:
            raise ValueError(f"class {label} is outside 0 ... {self.config.num_classes - 1}")
        return label


class TextCondition(Conditioner):
    """A text, as a frozen language model reads it."""

    reads_text, told = True, "the captions"

    def asked(self, wanted: Sequence[str | int]) -> Condition:
        """Return text states (B, L, C) and their mask (B, L)."""
        texts = [text for text in wanted if isinstance(text, str)]
        if not texts or len(texts) < len(wanted) or self.text_encoder is None:
            raise ValueError("this model is conditioned on text: give a prompt (and keep its text encoder)")
        states, mask = self.text_encoder(texts)
        return Condition(text=states, mask=mask)

    def of(self, captions: Sequence[str], labels: Tensor) -> Condition:
        """Return the captions' states and mask."""
        return self.asked(captions)

    def example(self, batch: int, text_length: int) -> Condition:
        """Return random states, none of them padding."""
        return Condition(text=torch.randn(batch, text_length, self.config.text_dim))

    def title(self, caption: str, class_name: str) -> str:
        """Return the caption."""
        return caption


CONDITIONERS: Mapping[str, type[Conditioner]] = {
    "none": NoCondition,
    "class": ClassCondition,
    "text": TextCondition,
}
"""By `generator.condition`."""
