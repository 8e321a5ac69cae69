"""What a model folder says of itself: its parts, their sizes, and what the hub lists it under."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reptok.tokenizer import RepTok

if TYPE_CHECKING:
    from torch import nn

    from reptok.pipeline import RepTokPipeline

LIBRARY, TAGS = "reptok", ("reptok", "image-generation")


def default_card(pipe: RepTokPipeline, license: str = "") -> str:
    """A model card that says what the folder holds.

    Args:
        pipe: The model.
        license: Of its weights, by the hub's name; "" states none.
    """
    stated = f"license: {license}\n" if license else ""
    number = pipe.tokenizer.num_tokens
    tokens = "one continuous token" if number == 1 else f"{number} continuous tokens"
    return (
        f"---\nlibrary_name: {LIBRARY}\npipeline_tag: {task_of(pipe)}\n{stated}"
        f"tags: [{', '.join(TAGS)}]\n---\n\n# RepTok model\n\n"
        f"An image is {tokens}. Load it with `reptok.load_pretrained(folder)`.\n\n{parts_table(pipe)}"
    )


def parts_table(pipe: RepTokPipeline) -> str:
    """The parts and their parameters, as a table of Markdown."""

    def millions(module: nn.Module) -> str:
        return f"{sum(p.numel() for p in module.parameters()) / 1e6:.2f} M parameters"

    tokenizer = pipe.tokenizer
    parts = [f"| autoencoder | {millions(tokenizer.autoencoder)} |"]
    if isinstance(tokenizer, RepTok):
        decoder = tokenizer.config.decoder
        parts = [
            f"| encoder, {tokenizer.encoder.dim} wide | {millions(tokenizer.encoder)} |",
            f"| decoder, {decoder.width} x {decoder.depth} | {millions(tokenizer.decoder)} |",
            *parts,
        ]
    if pipe.generator is not None:
        kind, condition = pipe.generator.config.kind, pipe.generator.config.condition
        parts.append(f"| generator, {kind}, condition {condition} | {millions(pipe.generator)} |")
    return "\n".join(["| part | size |\n|---|---|", *parts]) + "\n"


def task_of(pipe: RepTokPipeline) -> str:
    """The hub's name for what the model is for; it has none for pictures of a class."""
    if pipe.generator is None:
        return "image-feature-extraction"
    return "text-to-image" if pipe.generator.reads.reads_text else "unconditional-image-generation"
